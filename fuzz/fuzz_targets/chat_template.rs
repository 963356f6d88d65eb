//! A chat template, which comes with a model or an adapter, on a conversation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_convert::chat::{ChatMessage, ChatTemplate};
use slm_fuzz::contain_panics;

fuzz_target!(init: contain_panics(), |source: &str| {
    let Ok(template) = ChatTemplate::new("template", source.to_owned(), Some("<s>".to_owned()), None) else { return };
    let messages = [("system", "Be brief."), ("user", "What is 2 + 2?"), ("assistant", "4"), ("user", "a<|end|>b")];
    let messages = messages.map(|(role, content)| ChatMessage::new(role, content));
    let _ = template.render(&messages, true);
    let _ = template.render(&[], false);
});
