//! How a model writes calls, found from the text of its chat template.

use slm_convert::chat::{CallForm, ChatTemplate};

use super::{
    ToolSet,
    forms::{self, Read, gemma::Dialect},
};

/// A form of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen, SmolLM3, Granite 4.
    Hermes,
    /// `{"name": …, "parameters": …}`, after `<|python_tag|>` or nothing: Llama 3.
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}]`: Mistral, tokenizers of version 3 and 7.
    MistralList,
    /// `[TOOL_CALLS]name[ARGS]{…}`: Mistral, tokenizers of version 11 and later.
    MistralArgs,
    /// `<|tool_call|>[{"name": …, "arguments": …}]<|/tool_call|>`: Phi 4 mini.
    Phi,
    /// `<|tool_call|>[{"name": …, "arguments": …}]`: Granite 3.
    Granite,
    /// `<start_function_call>call:name{key:<escape>text<escape>}<end_function_call>`: FunctionGemma.
    FunctionGemma,
    /// `<|tool_call>call:name{key:<|"|>text<|"|>}<tool_call|>`: Gemma 4.
    Gemma,
    /// `<tool_call><function=name><parameter=key>text</parameter></function></tool_call>`: Qwen 3 Coder, Qwen 3.5.
    Xml,
    /// `<code>name(key="text")</code>`: SmolLM3 with `python_tools`.
    Code,
    /// `{"name": …, "arguments": …}` as the whole answer: of templates that know no tools, or another form.
    Json,
}

/// Texts of templates, each with the form that it shows, the most special first.
const SIGNS: [(&str, Form); 9] = [
    ("<start_function_call>", Form::FunctionGemma),
    ("<|tool_call>", Form::Gemma),
    ("<function=", Form::Xml),
    ("[ARGS]", Form::MistralArgs),
    ("[TOOL_CALLS]", Form::MistralList),
    ("<|tool_call|>", Form::Granite),
    ("<|tool|>", Form::Phi),
    // Others write keys and values instead of JSON there.
    ("<arg_key>", Form::Json),
    ("<tool_call>", Form::Hermes),
];
/// Texts that are no sign if one of the others is there.
const LLAMA: [&str; 2] = ["\"parameters\": dictionary of argument name", "<|python_tag|>"];

impl Form {
    /// The form that `template` shows. `code` if tools are given as functions of Python.
    #[must_use]
    pub fn of(template: &ChatTemplate, code: bool) -> Self {
        let source = template.source();
        if code && source.contains("python_tools") && source.contains("<code>") {
            return Self::Code;
        }
        if template.abilities().tools.is_none() {
            return Self::Json;
        }
        let sign = SIGNS.into_iter().find(|(sign, _)| source.contains(sign)).map(|(_, form)| form);
        let llama = || LLAMA.iter().any(|sign| source.contains(sign)).then_some(Self::Llama);
        sign.or_else(llama).unwrap_or(Self::Json)
    }

    /// Marks before calls. None: calls are the whole answer.
    pub(super) fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::Xml => &["<tool_call>"],
            Self::MistralList | Self::MistralArgs => &["[TOOL_CALLS]"],
            Self::Phi => &["<|tool_call|>"],
            Self::Granite => &["<|tool_call|>", "<tool_call>"],
            Self::FunctionGemma => &["<start_function_call>"],
            Self::Gemma => &["<|tool_call>"],
            Self::Code => &["<code>"],
            Self::Llama | Self::Json => &[],
        }
    }

    /// What may stand before a call that nothing marks.
    pub(super) fn prefixes(self) -> &'static [&'static str] {
        if self == Self::Llama { &["<|python_tag|>"] } else { &[] }
    }

    /// Texts that may be control tokens and are a part of a call nevertheless.
    #[must_use]
    pub fn tokens(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::Xml => &["<tool_call>", "</tool_call>"],
            Self::MistralList | Self::MistralArgs => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
            Self::Phi => &["<|tool_call|>", "<|/tool_call|>"],
            Self::Granite => &["<|tool_call|>", "<tool_call>"],
            Self::FunctionGemma => &["<start_function_call>", "<end_function_call>", "<escape>"],
            Self::Gemma => &["<|tool_call>", "<tool_call|>", "<|\"|>"],
            Self::Code => &["<code>", "</code>"],
            Self::Llama => &["<|python_tag|>"],
            Self::Json => &[],
        }
    }

    /// The mark after calls in JSON that follow `mark`.
    pub(super) fn close(self, mark: &str) -> Option<&'static str> {
        match self {
            Self::Phi => Some("<|/tool_call|>"),
            Self::Hermes | Self::Xml | Self::Granite if mark == "<tool_call>" => Some("</tool_call>"),
            _ => None,
        }
    }

    /// Calls at the beginning of `text`, which follows `mark`. `ends` if nothing comes after it.
    pub(super) fn read(self, mark: &str, text: &str, tools: &ToolSet, ends: bool) -> Read {
        match self {
            Self::Xml => forms::xml::read(text, tools, ends),
            Self::MistralList | Self::MistralArgs => forms::mistral::read(text, ends),
            Self::Hermes | Self::Phi | Self::Granite | Self::Llama | Self::Json => {
                forms::json::read(text, self.close(mark), ends)
            }
            Self::FunctionGemma => forms::gemma::read(text, &Dialect::FUNCTION_GEMMA, ends),
            Self::Gemma => forms::gemma::read(text, &Dialect::GEMMA, ends),
            Self::Code => forms::code::read(text, tools, ends),
        }
    }

    /// How calls with arguments in JSON are written.
    pub(super) fn wire(self) -> CallForm {
        match self {
            // Those that have no JSON in them read it nevertheless.
            Self::Hermes | Self::Xml => CallForm {
                item: ["<tool_call>", "\n{\"name\": \"", "", "\", \"arguments\": ", "}\n", "</tool_call>"],
                between: "\n",
                ..CallForm::JSON
            },
            Self::MistralArgs => {
                CallForm { item: ["[TOOL_CALLS]", "", "[ARGS]", "", "", ""], between: "", ..CallForm::JSON }
            }
            Self::MistralList => {
                CallForm { before: ["[TOOL_CALLS]", "["], between: ", ", after: ["]", ""], ..CallForm::JSON }
            }
            Self::Phi => CallForm {
                before: ["<|tool_call|>", "["],
                between: ", ",
                after: ["]", "<|/tool_call|>"],
                ..CallForm::JSON
            },
            Self::Granite => {
                CallForm { before: ["<|tool_call|>", "["], between: ", ", after: ["]", ""], ..CallForm::JSON }
            }
            Self::FunctionGemma => CallForm {
                item: ["<start_function_call>", "call:", "", "", "", "<end_function_call>"],
                between: "",
                ..CallForm::JSON
            },
            Self::Gemma => {
                CallForm { item: ["<|tool_call>", "call:", "", "", "", "<tool_call|>"], between: "", ..CallForm::JSON }
            }
            Self::Llama => CallForm {
                item: ["", "{\"name\": \"", "", "\", \"parameters\": ", "}", ""],
                between: "; ",
                ..CallForm::JSON
            },
            Self::Code => {
                CallForm { item: ["<code>", "\n", "(**", "", ")\n", "</code>"], between: "\n", ..CallForm::JSON }
            }
            Self::Json => CallForm::JSON,
        }
    }
}
