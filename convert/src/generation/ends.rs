//! End-of-sequence tokens that the files do not name by id.
//!
//! The files often disagree: `config.json` names the end of a text, `tokenizer_config.json` the end of a turn, a GGUF
//! file only one of them. A model may end an answer with either, so all of them end it, as in llama.cpp. Converters often
//! forget to mark these tokens as control tokens, so every token counts that the files add to the vocabulary. Of ordinary
//! tokens only those count that look like control tokens: text does not end an answer.

use std::collections::BTreeMap;

use super::GenerationDefaults;
use crate::chat::{ChatMessage, ChatTemplate};

/// Tokens that always mean the end of a turn or of a text.
const WELL_KNOWN: [&str; 21] = [
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
    "<|calls|>",
    "<|flush|>",
    "<turn|>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
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

/// Ids of the tokens that can end an answer, by text.
#[derive(Debug, Default)]
pub(crate) struct EndCandidates {
    /// Control tokens, and tokens added to the vocabulary without being marked as such.
    pub(crate) added: BTreeMap<String, u32>,
    /// Ordinary tokens that look like control tokens. They end an answer if the chat template ends a turn with them.
    pub(crate) lookalikes: BTreeMap<String, u32>,
}

/// Adds the end of the assistant's turn in the chat template, and the well-known end tokens.
pub(crate) fn add_ends(
    defaults: &mut GenerationDefaults,
    candidates: &EndCandidates,
    template: Option<&ChatTemplate>,
    vocab_size: usize,
) {
    let EndCandidates { added, lookalikes } = candidates;
    let mut add = |id: Option<&u32>, token: &str, named_by: &str| {
        if let Some(id) = id.filter(|id| (**id as usize) < vocab_size) {
            defaults.add_end(*id, token, named_by);
        }
    };
    if let Some((token, id)) = template.and_then(|template| end_of_turn(template, candidates)) {
        add(Some(&id), token, "the chat template, which ends a turn with it");
    }
    let harmony = added.contains_key(HARMONY.0);
    for token in WELL_KNOWN.iter().filter(|token| !(harmony && **token == HARMONY.1)) {
        add(added.get(*token), token, "its well-known text");
    }
    for end in defaults.ends.iter_mut().filter(|end| end.token.is_empty()) {
        if let Some((text, _)) = added.iter().chain(lookalikes).find(|(_, id)| **id == end.id) {
            end.token.clone_from(text);
        }
    }
}

/// Well-known ends in what a template writes. They are tokens if the vocabulary has them, though no file says so.
pub(crate) fn well_known_in(written: &str) -> impl Iterator<Item = &'static str> {
    WELL_KNOWN.into_iter().filter(|token| is_unmistakable(token) && written.contains(token))
}

/// Whether a text is written like a control token: `<…>` or `[…]`, one word.
pub(crate) fn looks_like_control(text: &str) -> bool {
    let inner = |open, close| text.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    let inner = inner('<', '>').or_else(|| inner('[', ']'));
    inner.is_some_and(|inner| !inner.is_empty() && !inner.contains(char::is_whitespace))
}

/// Whether a text is never a piece of ordinary text, such as HTML's `</s>`.
pub(crate) fn is_unmistakable(text: &str) -> bool {
    let bars = text.starts_with("<|") || text.starts_with("<｜") || text.ends_with("|>");
    looks_like_control(text) && (bars || text.starts_with("<end_of_"))
}

/// The token that a template writes right after an assistant message.
fn end_of_turn<'c>(template: &ChatTemplate, candidates: &'c EndCandidates) -> Option<(&'c str, u32)> {
    let turn = |role: &str, content: &str| ChatMessage::new(role, content);
    let plain = [turn("user", "a"), turn("assistant", SAID)];
    let after_system = [turn("system", "a"), turn("user", "a"), turn("assistant", SAID)];
    let rendered = template.render(&plain, false).or_else(|_| template.render(&after_system, false)).ok()?;
    let (before, after) = rendered.split_once(SAID)?;
    let after = after.trim_start();
    let all = || candidates.added.iter().chain(&candidates.lookalikes).filter(|(text, _)| !text.is_empty());
    let (end, id) =
        all().filter(|(token, _)| after.starts_with(token.as_str())).max_by_key(|(token, _)| token.len())?;
    // If a template always adds a generation prompt, this is the token that opens the next turn. Another one, which may
    // be plain text, opens a turn after the token that ended the one before.
    let opening = all().filter_map(|(token, _)| Some((before.rfind(token.as_str())?, token))).max();
    let opens = |(at, token): (usize, &String)| token == end && !before[at + token.len()..].contains(['<', '[']);
    (!opening.is_some_and(opens)).then_some((end.as_str(), *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

    fn added(tokens: &[&str]) -> EndCandidates {
        let added = tokens.iter().zip(0u32..).map(|(token, id)| ((*token).to_owned(), id)).collect();
        EndCandidates { added, lookalikes: BTreeMap::new() }
    }

    fn ends(template: &str, tokens: &[&str]) -> Vec<String> {
        of(template, &added(tokens))
    }

    fn of(template: &str, candidates: &EndCandidates) -> Vec<String> {
        let template = ChatTemplate::new("t", template.to_owned(), Some("<s>".into()), Some("</z>".into())).unwrap();
        let mut defaults = GenerationDefaults::default();
        add_ends(&mut defaults, candidates, Some(&template), 100);
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
        assert_eq!(ends(&CHATML.replace("im_end", "fin"), &["<|fin|>"]), ["<|fin|>"], "<|im_start|> is text here");
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
        let mut candidates = added(&[]);
        candidates.added.insert("</s>".to_owned(), 7);
        let mut defaults = GenerationDefaults::default();
        add_ends(&mut defaults, &candidates, None, 7);
        assert!(defaults.ends.is_empty());
    }

    #[test]
    fn an_ordinary_token_ends_what_the_template_ends_with_it_alone() {
        let lookalikes = BTreeMap::from([("<|im_end|>".to_owned(), 5), ("</s>".to_owned(), 6)]);
        let candidates = EndCandidates { added: BTreeMap::new(), lookalikes };
        assert_eq!(of(CHATML, &candidates), ["<|im_end|>"]);
        assert!(of("{{ messages[0].content }}", &candidates).is_empty());
    }

    #[test]
    fn control_tokens_are_known_by_their_looks() {
        for text in ["<|im_end|>", "<turn|>", "[EOS]", "</s>", "<fin>"] {
            assert!(looks_like_control(text), "{text}");
        }
        for text in ["<>", "< a>", "<", "a>", "<a", "[a b]", "\n", "end"] {
            assert!(!looks_like_control(text), "{text}");
        }
        assert!(is_unmistakable("<|im_end|>") && is_unmistakable("<end_of_turn>") && !is_unmistakable("</s>"));
    }
}
