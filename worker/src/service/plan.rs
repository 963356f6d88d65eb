//! What a request for an answer to messages means for its prompt and for the reading of its answer.

use slm_convert::chat::{ChatMessage, ChatTemplate};
use slm_proto::v1::GenerateRequest;

use crate::{
    constrain::{ConstraintError, Rule},
    text::{Input, TokenBytes},
    tools::{self, AnswerReader, Form, Thinking, ToolSet, ToolsError},
};

/// Tokens at the end of a prompt that show whether it leaves the model in the middle of its thoughts.
const END_TOKENS: usize = 16;

/// How an answer is read.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    form: Form,
    tools: Option<ToolSet>,
    thinking: Option<Thinking>,
}

impl Plan {
    /// Takes tools and variables from `request` and puts into `input` what `template` shows of them. `None` for raw prompts, whose
    /// answers are text.
    pub(super) fn new(
        request: &mut GenerateRequest,
        input: &mut Input,
        template: Option<&ChatTemplate>,
    ) -> Result<Option<Self>, ToolsError> {
        let constrained = request.sampling.as_ref().is_some_and(|sampling| sampling.constraint.is_some());
        let (given, choice) = (std::mem::take(&mut request.tools), request.tool_choice.take());
        let has_tools = !given.is_empty();
        let tools = ToolSet::new(given, choice, request.parallel_tool_calls)?;
        let variables = tools::variables(&std::mem::take(&mut request.chat_template_kwargs))?;
        let invalid = |field: &str, why: &str| ToolsError::Invalid { field: field.to_owned(), why: why.to_owned() };
        let Input::Messages(conversation) = input else {
            return match (has_tools, variables.is_empty()) {
                (true, _) => Err(invalid("tools", "are shown by the chat template; send messages")),
                (_, false) => Err(invalid("chat_template_kwargs", "are for the chat template; send messages")),
                _ => Ok(None),
            };
        };
        if constrained && tools.is_some() {
            let why = "cannot be called by an answer with a constraint; leave out one of them, or choose no tool";
            return Err(invalid("tools", why));
        }
        // Without a template the prompt is refused.
        let Some(template) = template else { return Ok(None) };
        let calls = |message: &ChatMessage| message.role == "tool" || !message.tool_calls.is_empty();
        let form = if tools.is_some() || conversation.messages.iter().any(calls) {
            Form::of(template, variables.contains_key("python_tools"))
        } else {
            Form::Json
        };
        conversation.variables = variables;
        conversation.tools = tools.iter().flat_map(|set| &set.tools).map(|tool| tool.shown.clone()).collect();
        **conversation = tools::adapted(std::mem::take(conversation), template, form);
        // A constraint says all of the answer.
        let thinking = if constrained { None } else { Thinking::of(template.source()) };
        Ok(Some(Self { form, tools, thinking }))
    }

    /// The rule of the answer to this prompt, if calls are guaranteed.
    pub(super) fn rule(&self, prompt: &[u32], bytes: &TokenBytes) -> Option<Result<Rule, ConstraintError>> {
        let tools = self.tools.as_ref().filter(|tools| tools.guarantees())?;
        Some(tools::rule(tools, self.form, self.thinking_after(prompt, bytes), |text| bytes.control(text)))
    }

    /// Whether [`Self::rule`] gives one.
    pub(super) fn has_rule(&self) -> bool {
        self.tools.as_ref().is_some_and(ToolSet::guarantees)
    }

    /// The reader of the answer to this prompt, and the control tokens that it has to see.
    pub(super) fn reader(self, prompt: &[u32], bytes: &TokenBytes) -> Option<(AnswerReader, Vec<u32>)> {
        let thinking = self.thinking_after(prompt, bytes);
        if thinking.is_none() && self.tools.is_none() {
            return None;
        }
        let marks = self.thinking.iter().flat_map(|marks| [marks.open, marks.close]);
        let tokens = self.tools.iter().flat_map(|_| self.form.tokens().iter().copied());
        let shown = marks.chain(tokens).filter_map(|text| bytes.control(text)).collect();
        let calls = self.tools.map(|tools| (self.form, tools));
        Some((AnswerReader::new(thinking, calls), shown))
    }

    fn thinking_after(&self, prompt: &[u32], bytes: &TokenBytes) -> Option<(Thinking, bool)> {
        let end = bytes.text(&prompt[prompt.len().saturating_sub(END_TOKENS)..]);
        self.thinking.map(|marks| (marks, marks.is_open_at_end(&end)))
    }
}
