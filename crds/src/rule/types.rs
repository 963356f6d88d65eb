//! Static types of expressions.

use std::fmt;

/// Type of a node; `Any` if it is known only at evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    List(Box<Self>),
    /// A map with values of this type.
    Map(Box<Self>),
    /// A map with the keys `role` and `content`, both strings.
    Message,
}

impl Type {
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double | Self::Any)
    }

    /// Whether a value of this type may have type `other`.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(_), Self::List(_)) | (Self::Map(_) | Self::Message, Self::Map(_) | Self::Message) => true,
            _ => self == other,
        }
    }

    /// Type of a value that has either type.
    pub(super) fn or(self, other: Self) -> Self {
        if self == other { self } else { Self::Any }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "a value of any type",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Int => "an integer",
            Self::Uint => "an unsigned integer",
            Self::Double => "a double",
            Self::String => "a string",
            Self::Bytes => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Message => "a message",
        })
    }
}
