use std::{collections::HashSet, time::Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::*;
use crate::sample::Mask;

/// Tokens of the tests' vocabulary: all bytes, these, and the end.
const WORDS: [&str; 8] = ["{\"", "\":", "\": ", "true", "null", "ab", "a\"", ", "];
const SPECIAL: u32 = 256 + WORDS.len() as u32;
const END: u32 = SPECIAL + 1;

fn constraints() -> Constraints {
    let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
    let tokens = bytes.iter().map(|byte| &byte[..]).chain(WORDS.map(str::as_bytes)).chain([&b"<|im|>"[..], b"</s>"]);
    let tokens: Vec<&[u8]> = tokens.collect();
    Constraints::new(Arc::new(TokenBytes::of(&tokens, &["<|im|>", "</s>"])), tokens.len())
}

fn schema(schema: &Value) -> Rule {
    Rule::Schema(schema.to_string())
}

fn text(constraints: &Constraints, tokens: &[u32]) -> String {
    String::from_utf8(tokens.iter().flat_map(|token| constraints.bytes.get(*token)).copied().collect()).unwrap()
}

fn pick(mask: &Mask, random: &mut ChaCha8Rng) -> u32 {
    let allowed: Vec<u32> = (0..=END).filter(|token| mask.allows(*token)).collect();
    // The end when it may: a random walk through a text of bytes is long otherwise.
    if mask.allows(END) { END } else { allowed[random.random_range(0..allowed.len())] }
}

/// A random answer.
fn answer(constraints: &Constraints, rule: &Rule, seed: u64) -> String {
    let mut guide = constraints.compile(rule).unwrap().guide(&[END]);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut tokens = Vec::new();
    loop {
        assert!(tokens.len() < 10_000, "{}", text(constraints, &tokens));
        let next = guide.look_ahead(&[]).unwrap();
        let Next::Tokens(mask) = &next[0] else { break };
        let token = pick(mask, &mut random);
        if token == END {
            break;
        }
        tokens.push(token);
        if guide.take(0, token).unwrap() {
            break;
        }
    }
    text(constraints, &tokens)
}

#[test]
fn answers_are_what_the_rule_says() {
    let constraints = constraints();
    let person = json!({
        "type": "object", "properties": {"name": {"enum": ["ab", "b"]}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
        "required": ["name", "age"], "additionalProperties": false,
    });
    for seed in 0..20 {
        let document: Value = serde_json::from_str(&answer(&constraints, &schema(&person), seed)).unwrap();
        assert!(document["age"].as_u64().unwrap() <= 120 && document.as_object().unwrap().len() == 2, "{document}");
        let number = answer(&constraints, &Rule::Regex("^[0-9]{3}-[a-c]+$".into()), seed);
        assert!(number.len() >= 5 && number.as_bytes()[3] == b'-', "{number}");
        let choice = answer(&constraints, &Rule::Choice(vec!["null".into(), "a\"b".into()]), seed);
        assert!(["null", "a\"b"].contains(&choice.as_str()), "{choice}");
        let grammar = answer(&constraints, &Rule::Grammar("start: \"(\" start \")\" | \"x\"".into()), seed);
        assert_eq!(grammar.matches('(').count(), grammar.matches(')').count(), "{grammar}");
    }
}

#[test]
fn control_tokens_and_ends_come_only_where_the_answer_is_complete() {
    let constraints = constraints();
    let mut guide = constraints.compile(&Rule::Regex("(?s:.{2,4})".into())).unwrap().guide(&[END, u32::from(b'x')]);
    for length in 0..5 {
        let next = guide.look_ahead(&[]).unwrap();
        let Next::Tokens(mask) = &next[0] else {
            assert_eq!(length, 4);
            return;
        };
        assert!(!mask.allows(SPECIAL), "{length}: a control token is no text");
        assert_eq!((mask.allows(END), mask.allows(u32::from(b'x'))), (length >= 2, length >= 2), "{length}");
        guide.take(0, u32::from(b'a')).unwrap();
    }
    panic!("it goes on");
}

#[test]
fn a_complete_answer_ends_by_itself() {
    let constraints = constraints();
    let mut guide = constraints.compile(&Rule::Choice(vec!["ab".into(), "abc".into()])).unwrap().guide(&[]);
    assert!(!guide.take(0, 256 + 5).unwrap(), "ab: c may follow");
    let next = guide.look_ahead(&[]).unwrap();
    let Next::Tokens(mask) = &next[0] else { panic!("{next:?}") };
    assert!(mask.allows(u32::from(b'c')) && !mask.allows(u32::from(b'a')));
    assert!(guide.take(0, u32::from(b'c')).unwrap());
    assert_eq!(guide.look_ahead(&[]).unwrap(), [Next::End]);
    let mut object = constraints.compile(&schema(&json!({"const": {}}))).unwrap().guide(&[END]);
    assert!(!object.take(0, u32::from(b'{')).unwrap());
    object.take(0, u32::from(b'}')).unwrap();
    let next = object.look_ahead(&[]).unwrap();
    assert!(
        !matches!(&next[0], Next::Tokens(mask) if mask.allows(u32::from(b'\n'))),
        "no white space after a document"
    );
}

#[test]
fn a_draft_is_checked_and_taken_back() {
    let constraints = constraints();
    let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    let rule = Rule::Regex("(abc|abd|xyz)!".into());
    let mut guide = constraints.compile(&rule).unwrap().guide(&[END]);
    assert_eq!(guide.admits(&bytes("abcz")), 3);
    assert_eq!((guide.admits(&bytes("q")), guide.admits(&[])), (0, 0));
    assert_eq!(guide.admits(&[u32::from(b'a'), END]), 1, "an end is no part of a draft");
    let next = guide.look_ahead(&bytes("abc")).unwrap();
    assert_eq!(next.len(), 4);
    // Two are right, and then another one comes.
    assert!(!guide.take(2, u32::from(b'd')).unwrap());
    let next = guide.look_ahead(&bytes("!")).unwrap();
    assert_eq!(next[1..], [Next::End]);
    // All wrong, although the last one was the end.
    let mut guide = constraints.compile(&rule).unwrap().guide(&[END]);
    guide.look_ahead(&bytes("abc!")).unwrap();
    assert!(!guide.take(0, u32::from(b'x')).unwrap());
    assert_eq!(guide.admits(&bytes("yz!a")), 3);
    guide.look_ahead(&bytes("yz")).unwrap();
    assert!(guide.take(2, u32::from(b'!')).unwrap());
}

#[test]
fn what_the_vocabulary_has_no_letters_for_is_a_failure_of_one_answer() {
    let constraints = Constraints::new(Arc::new(TokenBytes::of(&[b"a", b"b"], &[])), 2);
    let prototype = constraints.compile(&Rule::Choice(vec!["axe".into()])).unwrap();
    let mut guide = prototype.guide(&[]);
    guide.take(0, 0).unwrap();
    let failed = guide.look_ahead(&[]).unwrap_err();
    assert!(
        failed.to_string().contains("choice has led to where no token of the model's vocabulary may follow"),
        "{failed}"
    );
    assert!(!prototype.is_spoiled());
    assert!(prototype.guide(&[]).look_ahead(&[]).is_ok(), "others go on");
}

#[test]
fn a_token_that_is_not_allowed_fails_without_a_panic() {
    let constraints = constraints();
    let mut guide = constraints.compile(&Rule::Regex("abc".into())).unwrap().guide(&[]);
    let failed = guide.take(0, u32::from(b'z')).unwrap_err();
    assert!(failed.to_string().starts_with("regex became too complex"), "{failed}");
    assert!(guide.look_ahead(&[]).is_err());
}

#[test]
fn refusals_say_what_and_where() {
    let constraints = constraints();
    let of_a = |of: Value| schema(&json!({"type": "object", "properties": {"a": of}, "required": ["a"]}));
    let overlapping = json!({"oneOf": [{"type": "object"}, {"type": "object", "required": ["x"]}]});
    for (rule, message) in [
        (Rule::Schema("{".into()), "json_schema cannot be used: it is not JSON: EOF while parsing"),
        (Rule::Schema("[".repeat(1000)), "json_schema cannot be used: it is not JSON: recursion limit exceeded"),
        (of_a(json!({"format": "no-such-format"})), "json_schema at /properties/a: Unknown format: no-such-format"),
        (of_a(json!({"type": "strin"})), "json_schema at /properties/a: Invalid type: strin"),
        (of_a(overlapping), "json_schema at /properties/a: `oneOf` is supported where"),
        (of_a(json!({"minimum": 3, "maximum": 2, "type": "integer"})), "json_schema at "),
        (
            of_a(json!({"pattern": "(", "type": "string"})),
            "json_schema at /properties/a: regex parse error: ( ^ error: unclosed group",
        ),
        (Rule::Schema("false".into()), "json_schema at its root: "),
        (Rule::Regex("(a".into()), "regex cannot be used: "),
        (Rule::Regex("(?=a)b".into()), "regex cannot be used: "),
        (Rule::Grammar("start: nobody".into()), "grammar cannot be used: "),
        (Rule::Grammar("(".repeat(5000)), "grammar cannot be used: 5000 brackets are open at once; at most 100 may be"),
        (Rule::Grammar("start: <|im|>".into()), "grammar cannot be used: a grammar cannot name control tokens"),
    ] {
        let refused = constraints.compile(&rule).unwrap_err();
        println!("{refused}");
        let refused = refused.to_string();
        assert!(refused.starts_with(message) && !refused.contains("panic"), "{refused}");
    }
}

/// Each would take gigabytes or minutes without bounds, or all of a stack.
#[test]
fn what_explodes_is_stopped() {
    let constraints = constraints();
    let chain: String = (0..6000).map(|index| format!("r{index}:r{}\n", index + 1)).collect();
    let nested =
        (0..120).fold(json!({"type": "null"}), |inner, _| json!({"type": "array", "items": inner, "minItems": 1}));
    for (rule, may_pass) in [
        (Rule::Regex("((((a{1,1000}){1,1000}){1,1000}){1,1000})".into()), true),
        (Rule::Regex("((a|b)*a(a|b){200}c?)*".into()), true),
        (Rule::Regex("(a|b)*a(a|b){4000}(a|b)*".into()), true),
        (Rule::Regex("(".repeat(8000) + &")".repeat(8000)), false),
        (Rule::Regex("a?".repeat(8000)), true),
        (Rule::Regex("[a-z]".repeat(3000)), true),
        (Rule::Grammar(format!("start:r0\n{chain}r6000:\"x\"")), true),
        (Rule::Grammar(format!("start: {}", "\"x\"? ".repeat(10_000))), true),
        (schema(&nested), true),
        (schema(&json!({"type": "string", "maxLength": 4_000_000_000_u64})), true),
        (schema(&json!({"type": "array", "maxItems": 4_000_000_000_u64})), true),
        (schema(&json!({"type": "array", "minItems": 4_000_000_000_u64})), true),
        (schema(&json!({"enum": (0..50_000).map(|index| index.to_string()).collect::<Vec<_>>()})), true),
    ] {
        let begun = Instant::now();
        let compiled = constraints.compile(&rule);
        let shown: String = format!("{rule:?}").chars().take(60).collect();
        println!("{shown}: {:?}, {:?}", begun.elapsed(), compiled.as_ref().map(|_| ()).map_err(ToString::to_string));
        assert!(begun.elapsed().as_secs() < 20, "{shown}");
        assert!(may_pass || compiled.is_err(), "{shown}");
        if let Ok(prototype) = compiled {
            let walking = std::thread::Builder::new().stack_size(64 << 20).spawn(move || walk(&prototype));
            let tokens = walking.unwrap().join().unwrap();
            println!("    {tokens} tokens, {:?}, {} bytes", begun.elapsed(), prototype_bytes(&constraints, &rule));
            assert!(begun.elapsed().as_secs() < 60, "{shown}");
        }
    }
}

/// Tokens of an answer up to 300, or to the failure that its bounds are.
fn walk(prototype: &Arc<Prototype>) -> usize {
    let mut guide = prototype.guide(&[]);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for length in 0..300 {
        let Ok(next) = guide.look_ahead(&[]) else { return length };
        let Next::Tokens(mask) = &next[0] else { return length };
        if guide.take(0, pick(mask, &mut random)) != Ok(false) {
            return length;
        }
    }
    300
}

fn prototype_bytes(constraints: &Constraints, rule: &Rule) -> usize {
    constraints.known(rule).map_or(0, |known| known.map_or(0, |prototype| prototype.learnt_bytes()))
}

#[test]
fn a_rule_is_compiled_once() {
    let constraints = constraints();
    assert!(constraints.known(&Rule::Object).is_none());
    let first = constraints.compile(&Rule::Object).unwrap();
    assert!(Arc::ptr_eq(&first, &constraints.known(&Rule::Object).unwrap().unwrap()));
    first.spoil();
    assert!(constraints.known(&Rule::Object).is_none(), "what an answer has overrun is compiled anew");
    assert!(!Arc::ptr_eq(&first, &constraints.compile(&Rule::Object).unwrap()));
}

#[test]
fn white_space_between_parts_is_bounded() {
    let constraints = constraints();
    let mut guide = constraints.compile(&Rule::Object).unwrap().guide(&[]);
    let mut seen = HashSet::new();
    guide.take(0, u32::from(b'{')).unwrap();
    for _ in 0..60 {
        let next = guide.look_ahead(&[]).unwrap();
        let Next::Tokens(mask) = &next[0] else { panic!("{next:?}") };
        let Some(space) = [b'\n', b' '].map(u32::from).into_iter().find(|space| mask.allows(*space)) else {
            assert_eq!(seen.len(), 2);
            return;
        };
        seen.insert(space);
        guide.take(0, space).unwrap();
    }
    panic!("it goes on");
}
