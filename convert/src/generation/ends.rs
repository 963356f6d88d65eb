//! End-of-sequence tokens that the files do not name by id.
//!
//! The files often disagree: `config.json` names the end of a text, `tokenizer_config.json` the end of a turn, a GGUF
//! file only one of them. A model may end an answer with either, so all of them end it, as in llama.cpp. A token counts
//! only if the vocabulary marks it as a control token: text that merely looks like one does not end an answer.

use std::collections::BTreeMap;

use super::GenerationDefaults;
use crate::chat::{ChatMessage, ChatTemplate};

/// Control tokens that always mean the end of a turn or of a text.
const WELL_KNOWN: [&str; 18] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endoftext|>",
    "</s>",
    "<|end_of_text|>",
    "<|return|>",
    "<|call|>",
    "<turn|>",
    "<eos>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_turn|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
];
/// In vocabularies with this token, `<|end|>` ends a message within the answer, not the answer.
const HARMONY: (&str, &str) = ("<|return|>", "<|end|>");
/// Placeholder text that no template contains.
const SAID: &str = "qzvxkj";

/// Control tokens' ids by text.
pub(crate) type ControlTokens = BTreeMap<String, u32>;

/// Adds the end of the assistant's turn in the chat template, and the well-known end tokens.
pub(crate) fn add_ends(
    defaults: &mut GenerationDefaults,
    controls: &ControlTokens,
    template: Option<&ChatTemplate>,
    vocab_size: usize,
) {
    let mut add = |token: &str, named_by: &str| {
        if let Some(id) = controls.get(token).filter(|id| (**id as usize) < vocab_size) {
            defaults.add_end(*id, token, named_by);
        }
    };
    if let Some(token) = template.and_then(|template| end_of_turn(template, controls)) {
        add(token, "the chat template, which ends a turn with it");
    }
    let harmony = controls.contains_key(HARMONY.0);
    for token in WELL_KNOWN.iter().filter(|token| !(harmony && **token == HARMONY.1)) {
        add(token, "its well-known text");
    }
    for end in defaults.ends.iter_mut().filter(|end| end.token.is_empty()) {
        if let Some((text, _)) = controls.iter().find(|(_, id)| **id == end.id) {
            end.token.clone_from(text);
        }
    }
}

/// The control token that a template writes right after an assistant message.
fn end_of_turn<'c>(template: &ChatTemplate, controls: &'c ControlTokens) -> Option<&'c str> {
    let turn = |role: &str, content: &str| ChatMessage::new(role, content);
    let plain = [turn("user", "a"), turn("assistant", SAID)];
    let after_system = [turn("system", "a"), turn("user", "a"), turn("assistant", SAID)];
    let rendered = template.render(&plain, false).or_else(|_| template.render(&after_system, false)).ok()?;
    let (before, after) = rendered.split_once(SAID)?;
    let after = after.trim_start();
    let end = controls.keys().filter(|token| after.starts_with(token.as_str())).max_by_key(|token| token.len())?;
    // If a template always adds a generation prompt, this is the token that opens the next turn.
    let opening = controls.keys().filter_map(|token| Some((before.rfind(token.as_str())?, token))).max();
    opening.is_none_or(|(_, token)| token != end).then_some(end.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

    fn ends(template: &str, controls: &[&str]) -> Vec<String> {
        let controls: ControlTokens =
            controls.iter().zip(0u32..).map(|(token, id)| ((*token).to_owned(), id)).collect();
        let template = ChatTemplate::new("t", template.to_owned(), Some("<s>".into()), Some("</z>".into())).unwrap();
        let mut defaults = GenerationDefaults::default();
        add_ends(&mut defaults, &controls, Some(&template), 100);
        defaults.ends.into_iter().map(|end| end.token).collect()
    }

    #[test]
    fn the_template_says_how_a_turn_ends() {
        assert_eq!(ends(CHATML, &["<|im_start|>", "<|im_end|>"]), ["<|im_end|>"]);
        let llama2 = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}";
        assert_eq!(ends(llama2, &["<s>", "</z>"]), ["</z>"]);
        let own = "{% for m in messages %}<r>{{ m.role }}<h>{{ m.content | trim }}\n<fin>{% endfor %}";
        assert_eq!(ends(own, &["<r>", "<h>", "<fin>"]), ["<fin>"]);
        let after_system =
            "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[2].content }}<fin>";
        assert_eq!(ends(after_system, &["<fin>"]), ["<fin>"]);
    }

    #[test]
    fn what_is_no_control_token_or_opens_a_turn_ends_nothing() {
        assert!(ends(CHATML, &["<|im_start|>"]).is_empty(), "<|im_end|> is text here");
        let prompted = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>";
        assert!(ends(prompted, &["<|user|>", "<|assistant|>"]).is_empty());
        assert!(ends("{{ messages[0].content }}", &["<|pad|>"]).is_empty());
    }

    #[test]
    fn well_known_ends_are_ends_unless_the_vocabulary_uses_them_otherwise() {
        assert_eq!(ends("", &["<|eot_id|>", "</s>", "<pad>"]), ["<|eot_id|>", "</s>"]);
        assert_eq!(ends("", &["<|return|>", "<|end|>", "<|call|>"]), ["<|return|>", "<|call|>"]);
    }

    #[test]
    fn a_token_beyond_the_head_cannot_be_generated() {
        let controls = ControlTokens::from([("</s>".to_owned(), 7)]);
        let mut defaults = GenerationDefaults::default();
        add_ends(&mut defaults, &controls, None, 7);
        assert!(defaults.ends.is_empty());
    }
}
