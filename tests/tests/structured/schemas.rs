//! Schemas of many kinds, made from a seed. Most have documents of bounded length: a small model at temperature 1 goes on for as
//! long as it may.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

/// Of nested schemas.
const DEPTH_MAX: usize = 3;

pub(crate) fn random(seed: u64) -> Value {
    let mut random = StdRng::seed_from_u64(seed);
    match seed % 8 {
        0 => with_definitions(&mut random),
        1 => list(&mut random),
        2 => any(&mut random, 0),
        _ => object(&mut random, 0),
    }
}

fn any(random: &mut StdRng, depth: usize) -> Value {
    let kinds = if depth < DEPTH_MAX { 14 } else { 10 };
    match random.random_range(0..kinds) {
        0 => json!({"enum": ["red", "green", 7, null, true, "gelb: \"ü\""]}),
        1 => json!({"const": ([json!("fixed"), json!({"a": 1.5})].choose(random))}),
        2 => {
            let least = random.random_range(-1000..1000);
            json!({"type": "integer", "minimum": least, "maximum": least + random.random_range(0..300)})
        }
        3 => {
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": random.random_range(1..50), "multipleOf": 0.25})
        }
        4 => json!({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}),
        5 => {
            let least = random.random_range(0..5);
            json!({"type": "string", "minLength": least, "maxLength": least + random.random_range(1..20)})
        }
        6 => {
            json!({"type": "string", "pattern": (["^[A-Z]{2}-[0-9]{3,5}$", "^(a|bc){0,5}d$", "^\\w{1,9}@\\w{1,9}\\.org$"].choose(random))})
        }
        7 => json!({"type": "string", "format": (["date", "uuid", "ipv4"].choose(random))}),
        8 => json!({"type": ["boolean", "null"]}),
        9 => json!({"type": "string", "enum": ["low", "medium", "high"]}),
        10 => {
            let least = random.random_range(0..3);
            json!({
                "type": "array", "items": any(random, depth + 1),
                "minItems": least, "maxItems": least + random.random_range(0..3),
            })
        }
        11 => json!({
            "type": "array", "prefixItems": [any(random, depth + 1), any(random, depth + 1)], "items": false, "minItems": 2,
        }),
        12 => json!({"anyOf": [any(random, depth + 1), any(random, depth + 1), {"type": "null"}]}),
        _ => object(random, depth + 1),
    }
}

fn object(random: &mut StdRng, depth: usize) -> Value {
    let names = ["name", "id", "a b", "größe", "quote\"d", "tags", "x-1", ""];
    let names: Vec<&str> = names.choose_multiple(random, 4).copied().collect();
    let count = random.random_range(1..=4);
    let properties: Map<String, Value> =
        names[..count].iter().map(|name| ((*name).to_owned(), any(random, depth + 1))).collect();
    let required: Vec<&str> = names[..count].iter().copied().filter(|_| random.random_bool(0.6)).collect();
    let additional = if random.random_bool(0.9) { json!(false) } else { json!({"type": "integer", "maximum": 9}) };
    let mut object = json!({
        "type": "object", "title": "T", "properties": properties, "required": required,
        "additionalProperties": additional,
    });
    if additional != false {
        object["patternProperties"] = json!({"^p[0-9]$": {"type": "boolean"}});
    }
    object
}

/// References, now and then a recursive one.
fn with_definitions(random: &mut StdRng) -> Value {
    let next = if random.random_bool(0.2) { "#/$defs/node" } else { "#/$defs/last" };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "first": {"$ref": "#/$defs/node"}, "other": {"$ref": "#/definitions/a~1b"}, "plain": object(random, 1),
        },
        "required": ["first", "other"], "additionalProperties": false,
        "$defs": {"node": {
            "type": "object",
            "properties": {"value": any(random, 2), "next": {"anyOf": [{"type": "null"}, {"$ref": next}]}},
            "required": ["value", "next"], "additionalProperties": false,
        }, "last": {"type": "array", "items": {"$ref": "#/$defs/leaf"}, "maxItems": 3}, "leaf": {"enum": ["x", "y"]}},
        "definitions": {"a/b": any(random, 2)},
    })
}

fn list(random: &mut StdRng) -> Value {
    json!({"type": "array", "items": object(random, 1), "minItems": 1, "maxItems": 3})
}
