//! Keywords of JSON Schema, by what is done with them.

use serde_json::Value;

/// What is done with a keyword.
#[derive(Debug, PartialEq)]
pub(super) enum Keyword {
    /// llguidance honours its value as it is.
    Plain,
    /// Its value is a schema.
    Schema,
    /// A list of schemas.
    List,
    /// A schema, or a list of them in older drafts.
    SchemaOrList,
    /// An object of schemas.
    Schemas,
    /// `$ref`.
    Reference,
    /// The draft, of the whole document.
    Draft,
    /// Another base for references.
    Identifier,
    /// Changes nothing about which documents are right.
    Annotation,
    /// Not supported, but for a value that means nothing; and what to do instead.
    Unless(Value, &'static str),
    /// No keyword; and the nearest one.
    Unknown(Option<&'static str>),
}

const PLAIN: [&str; 17] = [
    "type",
    "const",
    "enum",
    "required",
    "minProperties",
    "maxProperties",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

const STRUCTURE: [&str; 10] = [
    "properties",
    "patternProperties",
    "additionalProperties",
    "items",
    "prefixItems",
    "additionalItems",
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
];

/// Definitions are read where something refers to them.
const ANNOTATIONS: [&str; 20] = [
    "title",
    "description",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$defs",
    "definitions",
    "$anchor",
    "$vocabulary",
    "contentMediaType",
    "contentEncoding",
    "contentSchema",
    "discriminator",
    "externalDocs",
    "xml",
    "id",
];

const INSTEAD_OF_CONDITIONS: &str = "use `anyOf` with a `const` property";
const UNSUPPORTED: [(&str, &str); 19] = [
    ("not", "list what is allowed instead, with `enum`, `type` or `pattern`"),
    ("if", INSTEAD_OF_CONDITIONS),
    ("then", INSTEAD_OF_CONDITIONS),
    ("else", INSTEAD_OF_CONDITIONS),
    ("dependencies", INSTEAD_OF_CONDITIONS),
    ("dependentRequired", INSTEAD_OF_CONDITIONS),
    ("dependentSchemas", INSTEAD_OF_CONDITIONS),
    ("uniqueItems", "leave it out and check the answer"),
    ("contains", "use `prefixItems`, or check the answer"),
    ("minContains", "check the answer"),
    ("maxContains", "check the answer"),
    ("propertyNames", "use `patternProperties` with `additionalProperties: false`"),
    ("unevaluatedProperties", "use `additionalProperties`"),
    ("unevaluatedItems", "use `items`"),
    ("nullable", "use `type` with a list, such as [\"string\", \"null\"]"),
    ("$dynamicRef", "use `$ref`"),
    ("$dynamicAnchor", "use `$defs` and `$ref`"),
    ("$recursiveRef", "use `$ref`"),
    ("$recursiveAnchor", "use `$defs` and `$ref`"),
];

/// Similarity from which a keyword is suggested.
const SIMILAR: f64 = 0.85;

pub(super) fn keyword(name: &str) -> Keyword {
    match name {
        "properties" | "patternProperties" => Keyword::Schemas,
        "additionalProperties" | "additionalItems" => Keyword::Schema,
        "items" => Keyword::SchemaOrList,
        "prefixItems" | "anyOf" | "oneOf" | "allOf" => Keyword::List,
        "$ref" => Keyword::Reference,
        "$schema" => Keyword::Draft,
        "$id" => Keyword::Identifier,
        _ if PLAIN.contains(&name) => Keyword::Plain,
        _ if ANNOTATIONS.contains(&name) || name.starts_with("x-") => Keyword::Annotation,
        _ => match UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == name) {
            Some((_, instead)) => Keyword::Unless(harmless(name), instead),
            None => Keyword::Unknown(nearest(name)),
        },
    }
}

/// The value with which an unsupported keyword says nothing.
fn harmless(name: &str) -> Value {
    match name {
        "uniqueItems" | "nullable" | "$recursiveAnchor" => Value::Bool(false),
        "propertyNames" | "unevaluatedProperties" | "unevaluatedItems" => Value::Bool(true),
        "not" => Value::Bool(false),
        _ => Value::Null,
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    let known = PLAIN.iter().chain(&STRUCTURE).chain(&ANNOTATIONS).copied();
    let near = known.map(|known| (strsim::jaro_winkler(name, known), known));
    near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(similar, _)| *similar > SIMILAR).map(|(_, known)| known)
}
