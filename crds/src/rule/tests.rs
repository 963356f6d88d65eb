use std::collections::HashMap;

use super::*;

/// Outcome and operations of one rule.
fn outcome(rule: &Rule, facts: &Facts) -> (Result<bool, RuleError>, u64) {
    let mut budget = Budget::default();
    (rule.holds(facts, &mut budget), budget.spent())
}

fn holds(rule: &Rule, facts: &Facts) -> Result<bool, RuleError> {
    outcome(rule, facts).0
}

fn facts(text: &str) -> Facts {
    let metadata = HashMap::from([("lang".to_owned(), "de".to_owned())]);
    let turns = [Turn { role: "system", content: "Be brief." }, Turn { role: "user", content: text }];
    Facts::new("assistant", text, turns, &metadata)
}

#[test]
fn rules_hold() {
    let request = facts("Book a FLIGHT to Oslo");
    let cases = [
        (r#"text.matches("(?i)\\b(flight|hotel)\\b")"#, true),
        (r#"text.matches(r"(?i)\b(train|bus)\b")"#, false),
        (r#"text.lowerAscii().contains("flight")"#, true),
        (r#"text.contains("flight")"#, false),
        (r#"metadata.lang == "de""#, true),
        (r#"has(metadata.tier) && metadata.tier == "gold""#, false),
        (r#""lang" in metadata"#, true),
        ("size(messages) == 2", true),
        (r#"messages.exists(m, m.role == "system" && m.content.startsWith("Be"))"#, true),
        (r#"messages.all(m, size(m.content) < 5)"#, false),
        (r#"model == "assistant" && size(text) < 100"#, true),
        (r#"text.matches("(?i)" + metadata.lang)"#, false),
        ("true", true),
        // A value that decides hides the error of the other side, in either order.
        ("metadata.tier == 'gold' || true", true),
        ("metadata.tier == 'gold' && false", false),
        ("[1, 2, 3].filter(n, n > 1) == [2, 3]", true),
        ("[1, 2, 3].map(n, n > 1, n * 2) == [4, 6]", true),
        ("[1, 2, 3].exists_one(n, n == 2)", true),
        ("metadata.all(key, size(key) == 4 && metadata[key] == 'de')", true),
        ("{'a': 1, 'b': 2}['b'] == 2 && 1 in [1, 2] && 'b' in {'b': 1}", true),
        ("1 == 1.0 && 1u == 1 && 2 > 1.5 && max(1, 3, 2) == 3 && min([2.5, 1.5]) == 1.5", true),
        ("int('7') + 1 == 8 && string(7) == '7' && double('1.5') > 1.0 && uint(3) == 3u", true),
        ("size('äöü') == 3 && size(b'ab') == 2 && 'a' < 'b'", true),
        ("text.contains('x') ? false : text.startsWith('Book') && text.endsWith('Oslo')", true),
        ("[[1], [2]].exists(inner, inner.exists(n, n == 2))", true),
    ];
    for (expression, expected) in cases {
        let rule = Rule::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(holds(&rule, &request), Ok(expected), "{expression}");
    }
}

#[test]
fn syntax_errors_are_in_words() {
    for text in ["text.matches(", "text == 'a' &&", "a b", "'\\u{1f600}' =="] {
        let message = Rule::compile(text).expect_err(text).to_string();
        assert!(!message.contains("ParseError") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn rules_are_refused() {
    let cases = [
        ("text.matches(", "not a CEL expression"),
        ("", "not a CEL expression"),
        ("txt.contains('a')", "unknown variable `txt`; did you mean `text`?"),
        ("text.match('a')", "unknown function `match`; did you mean `matches`?"),
        ("text.matches('(')", "regular expression \"(\" does not parse"),
        ("size(text)", "yields an integer, but a rule has to yield true or false"),
        // What the type of a variable already tells.
        ("text.exists(c, c == 'a')", "go over a list or the keys of a map, not over a string"),
        ("has(metadata.tags) && metadata.tags.exists(t, t == 'x')", "not over a string"),
        ("Foo{a: 1}.a == 1", "no messages of named types"),
        ("text + 1 == 'a'", "`+` does not take a string and an integer"),
        ("text == 1", "`==` does not take a string and an integer"),
        ("text && true", "takes booleans, not a string"),
        ("messages.exists(m, m.text == 'x')", "a message has the fields role and content, not `text`"),
        ("text.size == 1", "a string has no field `size`"),
        ("text.startsWith(1)", "`startsWith` does not take a string and an integer"),
        ("messages.map(m, m.content)", "yields a list"),
        ("-text == 'a'", "`-` takes a number, not a string"),
        ("text.matches('a{1000}{1000}')", "does not parse"),
        ("messages.exists(m, n.role == 'x')", "unknown variable `n`"),
        ("messages.exists(m, m.content.matches('['))", "does not parse"),
    ];
    for (expression, message) in cases {
        let error = check(expression).expect_err(expression).to_string();
        assert!(error.contains(message), "{expression}: {error}");
        assert!(!error.contains('\n'), "{expression}: {error}");
    }
}

#[test]
fn no_text_breaks_the_parser() {
    let mut texts: Vec<String> =
        ["\\", "'", "\"", "🙂", "[", "{", "}", "a.", ".a", "1u", "0x", "?:", "text[", "'\\u'", "r'", "b'\\xff'", "\0"]
            .map(str::to_owned)
            .into();
    for part in ["(", "[", "{'a':", "!", "-", "text.", "true?", "1+", "a&&"] {
        texts.push(part.repeat(EXPRESSION_BYTES_MAX / part.len()));
    }
    texts.push(format!("{}true{}", "(".repeat(2000), ")".repeat(2000)));
    texts.push("true &&".repeat(500) + "true");
    for text in texts {
        let _ = check(&text);
    }
}

#[test]
fn a_missing_key_is_an_error_of_that_request() {
    let rule = Rule::compile("metadata.tier == 'gold'").expect("compiles");
    let error = holds(&rule, &facts("hello")).expect_err("no such key");
    assert!(error.to_string().contains("tier"), "{error}");
}

#[test]
fn what_a_request_makes_of_a_rule_is_an_error_of_that_request() {
    let cases = [
        ("[1, 'a'][1] == 1 || [1, 'a'].exists(v, v + 1 == 2 && v + 2 == 4)", "does not take"),
        ("1 / (size(text) - size(text)) == 1", "divides by zero"),
        ("-9223372036854775807 - 2 == size(text)", "overflows"),
        ("int(text) == 1", "cannot be converted to an integer"),
        ("int(double('1e300')) == size(text)", "cannot be converted to an integer"),
        ("messages[7].role == 'x'", "outside of a list of 2 elements"),
        ("text.matches(metadata.lang + '(')", "does not parse"),
        ("max([1, 'a']) == 1", "take values of one kind"),
    ];
    for (expression, message) in cases {
        let rule = Rule::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let error = holds(&rule, &facts("hello")).expect_err(expression).to_string();
        assert!(error.contains(message), "{expression}: {error}");
    }
}

#[test]
fn no_request_makes_a_rule_cost_more_than_the_budget() {
    let long = "a ".repeat(TEXT_BYTES_MAX);
    let turns = vec![Turn { role: "user", content: "" }; 400_000];
    let metadata: HashMap<String, String> = (0..100_000).map(|n| (n.to_string(), String::new())).collect();
    let facts = Facts::new("m", &long, turns, &metadata);
    let dear = [
        // What is nested multiplies.
        "metadata.exists(a, metadata.exists(b, a == b && a == 'no'))",
        "messages.all(a, messages.all(b, messages.all(c, messages.all(d, messages.all(e, e.role == 'user')))))",
        // What is made grows.
        "[text].map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).exists(a, a == '')",
        "[metadata.map(k, k)].map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).exists(a, size(a) == 0)",
        "metadata.exists(k, text.contains(k + 'b'))",
        "metadata.exists(k, text.matches(k + 'b'))",
    ];
    for expression in dear {
        let rule = Rule::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let (outcome, spent) = outcome(&rule, &facts);
        assert_eq!((outcome, spent), (Err(RuleError::Cost), OPERATIONS_MAX), "{expression}");
    }
    // What the docs offer is cheap, whatever the caller sends.
    let rule = Rule::compile("messages.filter(m, m.role == 'user').size() > 3").expect("compiles");
    let (outcome, spent) = outcome(&rule, &facts);
    assert_eq!(outcome, Ok(true));
    assert!(spent < 1_000, "{spent}");
}

#[test]
fn rules_see_the_last_messages_and_the_beginning_of_a_text() {
    let number: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let turns = number.iter().map(|content| Turn { role: "user", content });
    let facts = Facts::new("m", &"ä".repeat(TEXT_BYTES_MAX), turns, &HashMap::new());
    let rule = "size(messages) == 64 && messages[63].content == '99' && size(text) == 32768";
    assert_eq!(holds(&Rule::compile(rule).expect("compiles"), &facts), Ok(true));
    let half = "x".repeat(TEXT_BYTES_MAX / 2);
    let turns = [Turn { role: "user", content: &half }; 3];
    let facts = Facts::new("m", "", turns, &HashMap::new());
    let rule = "size(messages) == 2 && size(messages[1].content) == 32768 && size(messages[0].content) == 32760";
    assert_eq!(holds(&Rule::compile(rule).expect("compiles"), &facts), Ok(true));
}
