use std::borrow::Cow;

use super::*;

fn redactor() -> Redactor {
    Redactor::new().expect("patterns")
}

#[test]
fn the_same_value_has_the_same_placeholder() {
    let first = "ada@example.com wrote to bob@example.com from 192.0.2.1";
    let second = "bob@example.com answered ada@example.com, Ada@example.com";
    let mut vault = redactor().vault([first, second]);
    assert_eq!(vault.redact(first), "[EMAIL_1] wrote to [EMAIL_2] from [IP_1]");
    assert_eq!(vault.redact(second), "[EMAIL_2] answered [EMAIL_1], [EMAIL_3]");
    assert_eq!(vault.counts().iter().collect::<Vec<_>>(), [(&Kind::Email, &3), (&Kind::IpAddress, &1)]);
    let given: Vec<_> = vault.placeholders().map(|placeholder| placeholder.to_string()).collect();
    assert_eq!(given, ["[EMAIL_1]", "[EMAIL_2]", "[IP_1]", "[EMAIL_3]"]);
    assert_eq!(vault.restore("[EMAIL_3] [EMAIL_4] [IP_1][IP_1]"), "Ada@example.com [EMAIL_4] 192.0.2.1192.0.2.1");
    assert_eq!(format!("{vault:?}"), "Vault { counts: {Email: 3, IpAddress: 1}, .. }");
}

#[test]
fn a_text_without_values_is_borrowed() {
    let mut vault = redactor().vault([]);
    assert!(matches!(vault.redact("nothing here, see [EMAIL_1]"), Cow::Borrowed(_)));
    assert!(matches!(vault.redact_json_text("{\"a\": [1, \"b\"]}"), Cow::Borrowed(_)));
}

#[test]
fn placeholders_of_the_caller_stay() {
    let question = "What does [EMAIL_1] or [EMAIL_3] mean?";
    let data = "ada@example.com, bob@example.com";
    let mut vault = redactor().vault([data, question]);
    assert_eq!(vault.redact(data), "[EMAIL_2], [EMAIL_4]");
    assert_eq!(vault.redact(question), question);
    assert_eq!(vault.restore("[EMAIL_1] [EMAIL_2] [EMAIL_3]"), "[EMAIL_1] ada@example.com [EMAIL_3]");
}

#[test]
fn placeholders_of_which_nobody_told_are_replaced_if_they_must_be() {
    let mut vault = redactor().vault([]);
    assert_eq!(vault.redact("ada@example.com"), "[EMAIL_1]");
    let late = "[EMAIL_1] and [EMAIL_2] and [EMAIL_3] and bob@example.com";
    let redacted = vault.redact(late).into_owned();
    assert_eq!(redacted, "[EMAIL_2] and [EMAIL_3] and [EMAIL_4] and [EMAIL_5]");
    assert_eq!(vault.restore(&redacted), late);
    let again = redacted.clone();
    let redacted = vault.redact(&again).into_owned();
    assert_eq!(vault.restore(&redacted), again);
    assert_eq!(vault.counts()[&Kind::Email], 2);
}

#[test]
fn what_is_inside_a_value_is_a_part_of_it() {
    let text = "-----BEGIN PRIVATE KEY-----\n[EMAIL_1]\n-----END PRIVATE KEY----- password=\"a[EMAIL_1]b\"";
    let mut vault = redactor().vault([]);
    vault.redact("ada@example.com");
    assert_eq!(vault.redact(text), "[SECRET_1] password=\"[SECRET_2]\"");
    assert_eq!(vault.restore("[SECRET_1] password=\"[SECRET_2]\""), text);
}

#[test]
fn strings_of_json_are_redacted() {
    let text = r#"{ "to":["ada@example.com"],"password" : "open \"sesame\"\n", "n": 1.50, "card": 4111111111111111,
        "homePhone": "23125012", "id": "23125012", "ada@example.com": "\u0061da@example.com", "s": "\ud83d\ude00 bob@example.com\t"}"#;
    let mut vault = redactor().vault([text]);
    let redacted = vault.redact_json_text(text).into_owned();
    let expected = r#"{ "to":["[EMAIL_1]"],"password" : "[SECRET_1]", "n": 1.50, "card": 4111111111111111,
        "homePhone": "[PHONE_1]", "id": "23125012", "[EMAIL_1]": "[EMAIL_1]", "s": "\ud83d\ude00 [EMAIL_2]\t"}"#;
    assert_eq!(redacted, expected);
    assert_eq!(vault.restore_json(&redacted), text.replace(r"\u0061", "a"));
    let value: serde_json::Value = serde_json::from_str(&vault.restore_json(&redacted)).expect("JSON");
    assert_eq!(value, serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
    assert_eq!(vault.restore("[SECRET_1]"), "open \"sesame\"\n");
}

#[test]
fn a_key_in_a_message_is_the_same_in_a_call() {
    let key = "-----BEGIN PRIVATE KEY-----\nMIIEvQ==\n-----END PRIVATE KEY-----";
    let call = serde_json::json!({ "text": format!("here: {key}") }).to_string();
    let mut vault = redactor().vault([key, &call]);
    assert_eq!(vault.redact(key), "[SECRET_1]");
    assert_eq!(vault.redact_json_text(&call), r#"{"text":"here: [SECRET_1]"}"#);
    assert_eq!(vault.restore_json(r#"{"text":"here: [SECRET_1]"}"#), call);
}

#[test]
fn what_is_not_json_is_text() {
    let mut vault = redactor().vault([]);
    assert_eq!(vault.redact_json_text("{\"a\": ada@example.com"), "{\"a\": [EMAIL_1]");
    assert_eq!(vault.redact_json_text("4111111111111111"), "[CARD_1]");
    assert_eq!(vault.redact_json_text("\"ada@example.com\""), "\"[EMAIL_1]\"");
}

#[test]
fn schemas_of_tools_stay() {
    let schema = r#"{"type":"object","properties":{"password":{"type":"string","description":"the user's password"},
        "phone":{"type":"string","pattern":"^\\+[0-9]{7,15}$"}},"required":["password","phone"]}"#;
    assert_eq!(redactor().vault([schema]).redact_json_text(schema), schema);
}
