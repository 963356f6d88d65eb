//! Mistral's calls after `[TOOL_CALLS]`: a list in JSON, or a name, `[ARGS]` and the arguments.

use serde_json::Value;

use super::{Begun, Call, Read, json};

const ARGS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";
/// A longer name is none.
const NAME_BYTES_MAX: usize = 128;

pub(in crate::tools) fn read(text: &str, ends: bool) -> Read {
    let begun = text.trim_start();
    if begun.starts_with('[') && !ARGS.starts_with(begun) && !begun.starts_with(ARGS) {
        return json::read(text, None, ends);
    }
    let Some((before, after)) = text.split_once(ARGS) else {
        let may = text.len() <= NAME_BYTES_MAX && !begun.contains('\n');
        return if may && !ends { Read::More } else { Read::No };
    };
    let name = before.split(ID).next().unwrap_or_default().trim();
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Read::No;
    }
    match json::value(after) {
        Begun::Whole(Value::Object(arguments), bytes) => {
            let call = Call { name: name.to_owned(), arguments };
            Read::Calls(vec![call], before.len() + ARGS.len() + bytes)
        }
        Begun::More if !ends => Read::More,
        _ => Read::No,
    }
}
