use serde_json::json;

use super::*;

#[test]
fn annotations_go_and_definitions_are_those_that_are_used() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/x", "title": "X",
        "x-order": 1, "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/definitions/b~1c"}, "c": {"$ref": "#there"},
            "d": {"$ref": "#/properties/e"}, "e": {"type": "array", "uniqueItems": false, "items": {"$ref": "#"}},
            "title": {"type": "string", "deprecated": true},
        },
        "$defs": {"A": {"type": "null"}, "B": {"$anchor": "there", "enum": [1]}, "unused": {"not": {}}},
        "definitions": {"b/c": {"type": "boolean"}},
    });
    let expected = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/definition-1"}, "c": {"$ref": "#/$defs/B"},
            "d": {"$ref": "#/$defs/e"}, "e": {"type": "array", "items": {"$ref": "#"}}, "title": {"type": "string"},
        },
        "$defs": {
            "A": {"type": "null"}, "definition-1": {"type": "boolean"}, "B": {"enum": [1]},
            "e": {"type": "array", "items": {"$ref": "#"}},
        },
    });
    assert_eq!(check(&schema), Ok(expected));
    assert_eq!(check(&json!(true)), Ok(json!(true)));
}

#[test]
fn what_cannot_be_honoured_is_refused_at_its_place() {
    let of_a = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    for (schema, message) in [
        (of_a(json!({"not": {}})), "json_schema at /properties/a/not: `not` is not supported; list what is allowed"),
        (
            of_a(json!({"minLenght": 3})),
            "at /properties/a/minLenght: `minLenght` is no keyword of JSON Schema; did you mean `minLength`?",
        ),
        (of_a(json!({"frobnicate": 3})), "at /properties/a/frobnicate: `frobnicate` is no keyword of JSON Schema"),
        (
            of_a(json!({"type": "array", "uniqueItems": true})),
            "at /properties/a/uniqueItems: `uniqueItems` is not supported",
        ),
        (
            of_a(json!({"$ref": "https://example.com/a.json"})),
            "at /properties/a/$ref: `https://example.com/a.json` is outside",
        ),
        (of_a(json!({"$ref": "other.json#/a"})), "at /properties/a/$ref: `other.json#/a` is outside of this document"),
        (of_a(json!({"$ref": "#/$defs/nobody"})), "at /properties/a/$ref: `#/$defs/nobody` leads nowhere; define it"),
        (of_a(json!({"$ref": "#nobody"})), "at /properties/a/$ref: `#nobody` leads nowhere"),
        (of_a(json!({"$ref": 5})), "at /properties/a/$ref: a reference has to be a string"),
        (of_a(json!({"$id": "x"})), "at /properties/a/$id: an identifier is supported at the root only"),
        (of_a(json!(5)), "at /properties/a: a schema has to be an object, true or false"),
        (json!("string"), "json_schema at its root: a schema has to be an object, true or false"),
        (json!({"properties": []}), "at /properties: it has to be an object of schemas"),
        (json!({"anyOf": {}}), "at /anyOf: it has to be a list of schemas"),
        (json!({"properties": {"a/b": {"if": {}}}}), "at /properties/a~1b/if: `if` is not supported"),
    ] {
        let refused = check(&schema).unwrap_err().to_string();
        assert!(refused.contains(message), "{refused}");
    }
}

#[test]
fn what_needs_itself_has_no_end() {
    let of = |schema: Value| json!({"type": "object", "properties": {"a": schema}, "required": ["a"]});
    let ends = |schema: &Value| check(schema).map(|_| ()).map_err(|error| error.to_string());
    for (schema, at) in [
        (of(json!({"$ref": "#"})), "at /properties/a/$ref: a document would have to contain itself"),
        (json!({"$ref": "#"}), "at /$ref"),
        (json!({"type": "array", "minItems": 1, "items": {"$ref": "#"}}), "at /items/$ref"),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            "at /$defs/a/$ref",
        ),
        (
            json!({"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": of(json!({"$ref": "#/$defs/a"}))}}),
            "at /$defs/a/",
        ),
        (json!({"anyOf": [of(json!({"$ref": "#"})), {"$ref": "#"}]}), "at /anyOf/0/properties/a/$ref"),
    ] {
        let refused = ends(&schema).unwrap_err();
        assert!(refused.contains(at), "{schema}: {refused}");
    }
    for schema in [
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}}),
        of(json!({"anyOf": [{"$ref": "#"}, {"type": "null"}]})),
        of(json!({"type": "array", "items": {"$ref": "#"}})),
    ] {
        assert_eq!(ends(&schema), Ok(()), "{schema}");
    }
}

#[test]
fn depth_is_bounded_over_references() {
    let chain = |length: usize| {
        let link =
            |index: usize| json!({"type": "object", "properties": {"a": {"$ref": format!("#/$defs/d{}", index + 1)}}});
        let mut definitions: Map<String, Value> = (0..length).map(|index| (format!("d{index}"), link(index))).collect();
        definitions.insert(format!("d{length}"), json!({"type": "null"}));
        json!({"$ref": "#/$defs/d0", "$defs": definitions})
    };
    assert!(check(&chain(100)).is_ok());
    let refused = |length| check(&chain(length)).unwrap_err().to_string();
    assert!(refused(200).contains("more than 256 levels deep, references included"), "{}", refused(200));
    assert!(refused(2000).contains("more than 1000 definitions"));
}

#[test]
fn an_integer_that_no_float_has_is_not_promised() {
    for (schema, pointer) in [
        (json!({"const": 9_007_199_254_740_993_u64}), "/const"),
        (
            json!({"properties": {"a": {"enum": [1, {"b": [-12_345_678_901_234_567_890_i128 as f64]}]}}}),
            "/properties/a/enum",
        ),
    ] {
        let refused = check(&schema).unwrap_err().to_string();
        assert!(refused.contains(pointer) && refused.contains("2^53"), "{refused}");
    }
    for schema in [json!({"const": 9_007_199_254_740_992_u64}), json!({"maximum": u64::MAX}), json!({"const": 0.1})] {
        assert_eq!(check(&schema).unwrap(), schema);
    }
}
