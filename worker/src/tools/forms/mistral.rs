//! Mistral's calls after `[TOOL_CALLS]`: a list in JSON, or a name, `[ARGS]` and the arguments.

use serde_json::Value;

use super::{Begun, Call, Read, json};

const ARGS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";
/// A longer name is none.
const NAME_BYTES_MAX: usize = 128;

pub(in crate::tools) fn read(text: &str, ends: bool) -> Read {
    if is_list(text) {
        return json::read(text, None, ends);
    }
    let Some((name, before)) = name(text) else {
        let may = text.len() <= NAME_BYTES_MAX && !text.trim_start().contains('\n') && !text.contains(ARGS);
        return if may && !ends { Read::More } else { Read::No };
    };
    match json::value(&text[before..]) {
        Begun::Whole(Value::Object(arguments), bytes) => {
            let call = Call { name: name.to_owned(), arguments };
            Read::Calls(vec![call], before + bytes)
        }
        Begun::More if !ends => Read::More,
        _ => Read::No,
    }
}

/// The name that stands before `[ARGS]`, and the bytes up to the arguments.
pub(in crate::tools) fn name(text: &str) -> Option<(&str, usize)> {
    let (before, _) = text.split_once(ARGS).filter(|_| !is_list(text))?;
    let name = before.split(ID).next().unwrap_or_default().trim();
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    is_name.then_some((name, before.len() + ARGS.len()))
}

/// Whether a list begins, and not `[ARGS]`.
fn is_list(text: &str) -> bool {
    let begun = text.trim_start();
    begun.starts_with('[') && !ARGS.starts_with(begun) && !begun.starts_with(ARGS)
}
