//! A completion put together from the events of a stream.

use crate::v1::{Completion, Delta, Finished, ToolCall, ToolCallDelta};

impl Completion {
    /// Adds the next delta.
    pub fn add(&mut self, mut delta: Delta) {
        self.text.push_str(&delta.text);
        self.reasoning.push_str(&delta.reasoning);
        self.logprobs.append(&mut delta.logprobs);
        for part in delta.tool_calls {
            self.add_call(part);
        }
    }

    /// Adds the end.
    pub fn finish(&mut self, finished: Finished) {
        self.reason = finished.reason;
        self.usage = finished.usage;
        self.stop = finished.stop;
        self.cost = finished.cost;
    }

    /// Parts of a call come one after another, and calls in their order.
    fn add_call(&mut self, part: ToolCallDelta) {
        let ToolCallDelta { index, id, name, arguments } = part;
        match self.tool_calls.get_mut(index as usize) {
            Some(call) => call.arguments.push_str(&arguments),
            None => self.tool_calls.push(ToolCall { id, name, arguments }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_calls_become_calls() {
        let part = |index, id: &str, name: &str, arguments: &str| ToolCallDelta {
            index,
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        };
        let mut whole = Completion::default();
        whole.add(Delta { text: "a".to_owned(), reasoning: "r".to_owned(), ..Default::default() });
        whole.add(Delta { tool_calls: vec![part(0, "x", "f", "{")], ..Default::default() });
        whole.add(Delta { tool_calls: vec![part(0, "", "", "}"), part(1, "y", "g", "{}")], ..Default::default() });
        let call = |id: &str, name: &str| ToolCall { id: id.into(), name: name.into(), arguments: "{}".into() };
        assert_eq!(whole.tool_calls, [call("x", "f"), call("y", "g")]);
        assert_eq!((whole.text.as_str(), whole.reasoning.as_str()), ("a", "r"));
    }
}
