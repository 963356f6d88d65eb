//! Random texts, full of what looks like placeholders and values, come back as they were.
#![allow(clippy::expect_used)] // A test says what it expects.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use proptest::prelude::*;
use slm_redact::{Redactor, Restorer};

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new().expect("patterns"));

/// Pieces that make trouble beside each other.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\[(EMAIL|PHONE|CARD|IBAN|IP|SECRET)_[0-9]{1,2}\\]",
        "\\[?\\[?(EMAIL|IP|SECRET)?_?[0-9]{0,10}\\]?",
        "[a-c]@example\\.(com|org)",
        "192\\.0\\.2\\.[1-4]",
        Just("4111 1111 1111 1111".to_owned()),
        Just("DE89 3704 0044 0532 0130 00".to_owned()),
        Just("+49 30 23125012".to_owned()),
        "(password|secret|token)( is |: |=|=\")[a-d1-3\\[\\]\"\\\\]{0,12}",
        Just("-----BEGIN PRIVATE KEY-----\nMII".to_owned()),
        Just("\n-----END PRIVATE KEY-----".to_owned()),
        "[ -~]{0,12}",
        "[ \n\tüß€😀\"\\\\]{0,4}",
        ".{0,6}",
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// JSON with the texts as strings and keys.
fn json(texts: &[String]) -> serde_json::Value {
    let keys = ["password", "phone", "a"].into_iter().map(str::to_owned).chain(texts.iter().cloned());
    let object: serde_json::Map<_, _> =
        keys.zip(texts).map(|(key, text)| (key, serde_json::json!([text, 1]))).collect();
    serde_json::json!({ "list": texts, "object": object })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn findings_are_in_order_and_apart(text in texts()) {
        let mut end = 0;
        for found in REDACTOR.find(&text) {
            prop_assert!(end <= found.range.start && !found.range.is_empty());
            prop_assert!(text.get(found.range.clone()).is_some());
            end = found.range.end;
        }
    }

    #[test]
    fn texts_come_back(texts in prop::collection::vec(texts(), 1..5), told in 0_usize..5) {
        // Of some texts the vault is told late.
        let mut vault = REDACTOR.vault(texts.iter().take(told).map(String::as_str));
        let redacted: Vec<_> = texts.iter().map(|text| vault.redact(text).into_owned()).collect();
        let mut values = HashMap::new();
        for (text, redacted) in texts.iter().zip(&redacted) {
            prop_assert_eq!(&vault.restore(redacted), text);
        }
        for placeholder in vault.placeholders() {
            let value = vault.restore(&placeholder.to_string());
            prop_assert_eq!(values.insert(value, placeholder), None);
        }
    }

    #[test]
    fn what_was_told_stays(texts in prop::collection::vec(texts(), 1..5), number in 1_u32..20) {
        let own = format!("[EMAIL_{number}]");
        let mut vault = REDACTOR.vault(texts.iter().map(String::as_str).chain([own.as_str()]));
        for text in &texts {
            vault.redact(text);
        }
        prop_assert_eq!(vault.redact(&own), own.as_str());
        prop_assert_eq!(&vault.restore(&own), &own);
    }

    #[test]
    fn json_comes_back(texts in prop::collection::vec(texts(), 1..5)) {
        let value = json(&texts);
        let text = value.to_string();
        let mut vault = REDACTOR.vault([text.as_str()]);
        let redacted = vault.redact_json_text(&text).into_owned();
        prop_assert!(serde_json::from_str::<serde_json::Value>(&redacted).is_ok(), "{}", redacted);
        prop_assert_eq!(&vault.restore_json(&redacted), &text);
        let pretty = serde_json::to_string_pretty(&value).expect("JSON").replace('e', "\\u0065");
        let redacted = vault.redact_json_text(&pretty).into_owned();
        let restored: serde_json::Value = serde_json::from_str(&vault.restore_json(&redacted)).expect("JSON");
        prop_assert_eq!(restored, serde_json::from_str::<serde_json::Value>(&pretty).expect("JSON"));
    }

    #[test]
    fn pieces_make_the_whole(data in texts(), answer in texts(), sizes in prop::collection::vec(1_usize..9, 1..9), is_json in any::<bool>()) {
        let mut vault = REDACTOR.vault([data.as_str()]);
        vault.redact(&data);
        let vault = Arc::new(vault);
        let whole = if is_json { vault.restore_json(&answer) } else { vault.restore(&answer) };
        let of = |vault| if is_json { Restorer::json(vault) } else { Restorer::text(vault) };
        let (mut of_bytes, mut of_text) = (of(Arc::clone(&vault)), of(vault));
        let mut rest = answer.as_bytes();
        let mut bytes = Vec::new();
        for size in sizes.iter().cycle() {
            let (piece, next) = rest.split_at(rest.len().min(*size));
            bytes.extend(of_bytes.push_bytes(piece));
            rest = next;
            if rest.is_empty() {
                break;
            }
        }
        bytes.extend(of_bytes.finish().bytes());
        prop_assert_eq!(String::from_utf8(bytes).expect("text"), whole.as_str());
        let characters: Vec<_> = answer.chars().collect();
        let mut text: String = characters.chunks(sizes[0]).map(|piece| of_text.push(&piece.iter().collect::<String>())).collect();
        text += &of_text.finish();
        prop_assert_eq!(text, whole);
    }
}
