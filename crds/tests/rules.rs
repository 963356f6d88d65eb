//! No expression and no request stops a rule: it compiles or is refused, and holds, does not hold or fails, within its
//! budget.
#![allow(clippy::expect_used)] // A test says what it expects.

use std::collections::HashMap;

use proptest::prelude::*;
use slm_crds::rule::{Budget, Facts, OPERATIONS_MAX, Rule, Turn};

/// Expressions that mostly parse, of every form that CEL has, whether their types fit or not.
fn expressions() -> impl Strategy<Value = String> {
    let leaves = prop_oneof![
        Just("text".to_owned()),
        Just("messages".to_owned()),
        Just("metadata".to_owned()),
        Just("model".to_owned()),
        Just("metadata.tags".to_owned()),
        Just("metadata['tags']".to_owned()),
        Just("v".to_owned()),
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<u64>().prop_map(|value| format!("{value}u")),
        any::<f64>().prop_map(|value| format!("double('{value}')")),
        "[a-z(]{0,6}".prop_map(|text| format!("'{text}'")),
        "[a-z]{0,6}".prop_map(|text| format!("b'{text}'")),
        Just("Foo{a: 1}".to_owned()),
    ];
    leaves.prop_recursive(5, 48, 4, |inner| {
        let two = (inner.clone(), inner.clone());
        let operators =
            prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"]);
        let macros = prop::sample::select(vec!["all", "exists", "exists_one", "filter", "map"]);
        let functions = prop::sample::select(vec![
            "contains",
            "startsWith",
            "endsWith",
            "matches",
            "size",
            "lowerAscii",
            "upperAscii",
            "string",
            "int",
            "uint",
            "double",
            "min",
            "max",
        ]);
        prop_oneof![
            (two.clone(), operators).prop_map(|((a, b), operator)| format!("({a} {operator} {b})")),
            (two.clone(), macros).prop_map(|((range, body), name)| format!("{range}.{name}(v, {body})")),
            (two.clone(), inner.clone()).prop_map(|((range, p), body)| format!("{range}.map(v, {p}, {body})")),
            (two.clone(), functions.clone()).prop_map(|((of, part), name)| format!("{of}.{name}({part})")),
            (inner.clone(), functions).prop_map(|(of, name)| format!("{name}({of})")),
            two.clone().prop_map(|(a, b)| format!("{a}[{b}]")),
            two.clone().prop_map(|(a, b)| format!("[{a}, {b}]")),
            two.clone().prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            (two, inner.clone()).prop_map(|((a, b), c)| format!("({a} ? {b} : {c})")),
            inner.clone().prop_map(|a| format!("!{a}")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("{a}.tags")),
            inner.prop_map(|a| format!("has({a}.role)")),
        ]
    })
}

fn requests() -> impl Strategy<Value = Facts> {
    let metadata = prop::collection::hash_map("[a-z]{0,4}|tags", "[a-z(]{0,6}", 0..4);
    let messages = prop::collection::vec(("user|system|", "[a-z ]{0,40}"), 0..6);
    (".{0,60}", messages, metadata).prop_map(
        |(text, messages, metadata): (String, Vec<(String, String)>, HashMap<_, _>)| {
            let turns: Vec<Turn<'_>> = messages.iter().map(|(role, content)| Turn { role, content }).collect();
            Facts::new("model", &text, turns, &metadata)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn every_expression_ends_within_the_budget(expression in expressions(), facts in requests()) {
        if let Ok(rule) = Rule::compile(&expression) {
            let mut budget = Budget::default();
            let _ = rule.holds(&facts, &mut budget);
            prop_assert!(budget.spent() <= OPERATIONS_MAX);
        }
    }

    #[test]
    fn any_text_is_compiled_or_refused(text in r#"[a-z0-9 .,(){}\[\]?:!&|<>=+*/%'"\\@-]{0,80}|.{0,40}"#) {
        let _ = Rule::compile(&text);
    }
}
