//! Kinds of personal data.

use std::fmt;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An address of e-mail, also as `ada [at] example [dot] com`.
    Email,
    /// A number of a telephone.
    Phone,
    /// A number of a payment card: 13 to 19 digits, by issuer and Luhn's checksum.
    Card,
    /// A number of a bank account, by country, length and checksum.
    Iban,
    /// An address of the Internet Protocol, version 4 or 6.
    IpAddress,
    /// A key, token, password or private key.
    Secret,
}

impl Kind {
    /// All kinds, in the order of the enum.
    pub const ALL: [Self; 6] = [Self::Email, Self::Phone, Self::Card, Self::Iban, Self::IpAddress, Self::Secret];

    /// The word in its placeholders, which also serves as a label of metrics: capitals of ASCII.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Email => "EMAIL",
            Self::Phone => "PHONE",
            Self::Card => "CARD",
            Self::Iban => "IBAN",
            Self::IpAddress => "IP",
            Self::Secret => "SECRET",
        }
    }

    /// How much is known of a value of this kind; of two that overlap, the larger is taken. A checksum says more than a shape, and
    /// a secret is whatever its prefix or its name says that it is.
    pub(crate) const fn certainty(self) -> u8 {
        match self {
            Self::Secret => 5,
            Self::Iban => 4,
            Self::Card => 3,
            Self::Email => 2,
            Self::IpAddress => 1,
            Self::Phone => 0,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
