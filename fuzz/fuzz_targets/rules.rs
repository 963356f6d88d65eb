//! A rule of a SwarmRoute and a request that it is asked of: the first line is the rule, the rest the request.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use slm_crds::rule::{Budget, Facts, Rule, Turn};
use slm_fuzz::contain_panics;

fuzz_target!(init: contain_panics(), |input: &str| {
    let (expression, request) = input.split_once('\n').unwrap_or((input, "hello"));
    let Ok(rule) = Rule::compile(expression) else { return };
    let turns = request.lines().map(|content| Turn { role: "user", content }).collect::<Vec<_>>();
    let metadata = request.split_whitespace().filter_map(|word| word.split_once('='));
    let metadata: HashMap<String, String> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let facts = Facts::new("model", request, turns, &metadata);
    let _ = rule.holds(&facts, &mut Budget::default());
});
