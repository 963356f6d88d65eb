//! Random answers under the grammars of every form call tools validly.

use std::sync::Arc;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::*;
use crate::{
    constrain::{Constraints, Next, Rule},
    text::TokenBytes,
};

const CONTROL: [&str; 8] = [
    "</s>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|tool_call|>",
    "<|/tool_call|>",
    "<start_function_call>",
    "<end_function_call>",
    "</think>",
];
const FORMS: [Form; 11] = [
    Form::Hermes,
    Form::Llama,
    Form::MistralList,
    Form::MistralArgs,
    Form::Phi,
    Form::Granite,
    Form::FunctionGemma,
    Form::Gemma,
    Form::Xml,
    Form::Code,
    Form::Json,
];

struct Model {
    bytes: Arc<TokenBytes>,
    constraints: Constraints,
}

impl Model {
    fn new() -> Self {
        let letters: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
        let words = ["<tool_call>", "{\"", "\": ", "name", "get_", "}\n"].map(str::as_bytes);
        let tokens: Vec<&[u8]> =
            letters.iter().map(|byte| &byte[..]).chain(words).chain(CONTROL.map(str::as_bytes)).collect();
        let bytes = Arc::new(TokenBytes::of(&tokens, &CONTROL));
        Self { constraints: Constraints::new(bytes.clone(), tokens.len()), bytes }
    }

    fn id(&self, text: &str) -> u32 {
        (0..self.bytes.len() as u32).find(|id| self.bytes.get(*id) == text.as_bytes()).unwrap()
    }

    fn control(&self, text: &str) -> Option<u32> {
        CONTROL.contains(&text).then(|| self.id(text))
    }

    /// A random answer that begins with `begin`; ends as soon as it may, or never before it has `least` tokens.
    fn answer(&self, rule: &Rule, begin: &[u32], least: usize, seed: u64) -> String {
        let end = self.id("</s>");
        let mut guide = self.constraints.compile(rule).unwrap().guide(&[end]);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut tokens = Vec::new();
        loop {
            assert!(tokens.len() < 3000, "{}", self.bytes.text(&tokens));
            let next = guide.look_ahead(&[]).unwrap();
            let Next::Tokens(mask) = &next[0] else { break };
            let token = match begin.get(tokens.len()) {
                Some(token) => {
                    assert!(
                        mask.allows(*token),
                        "{:?} after {:?}",
                        self.bytes.text(&[*token]),
                        self.bytes.text(&tokens)
                    );
                    *token
                }
                None if mask.allows(end) && tokens.len() >= least => end,
                None => {
                    let allowed: Vec<u32> =
                        (0..self.bytes.len() as u32).filter(|id| mask.allows(*id) && *id != end).collect();
                    if allowed.is_empty() {
                        break;
                    }
                    allowed[random.random_range(0..allowed.len())]
                }
            };
            if token == end {
                break;
            }
            tokens.push(token);
            if guide.take(0, token).unwrap() {
                break;
            }
        }
        self.bytes.text(&tokens)
    }
}

fn check(calls: &[String], context: &str) {
    assert!(!calls.is_empty(), "{context}");
    for call in calls {
        let (name, arguments) = call.split_once(' ').unwrap();
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        let right = match name {
            "get_weather" => {
                let days = &arguments["days"];
                ["Oslo", "Paris"].contains(&arguments["city"].as_str().unwrap_or_default())
                    && (days.is_null() || days.as_u64().is_some_and(|days| (1..=9).contains(&days)))
            }
            "add" => arguments["a"].as_u64().is_some_and(|a| a <= 99),
            _ => false,
        };
        assert!(right, "{call} of {context}");
    }
}

#[test]
fn an_answer_that_has_to_call_does() {
    let model = Model::new();
    for form in FORMS {
        for (choice, parallel) in [(Choice::Required, true), (Choice::Required, false), (Choice::Named(1), true)] {
            let tools = set(choice, parallel);
            let rule = rule(&tools, form, None, |text| model.control(text)).unwrap();
            let mut most = 0;
            for seed in 0..20 {
                // Long ones have several calls.
                let least = if parallel && choice == Choice::Required { 150 } else { 0 };
                let text = model.answer(&rule, &[], least, seed);
                let (_, said, calls) = read(form, None, &tools, &[&text]);
                check(&calls, &text);
                assert_eq!(said, "", "{form:?}: {text}");
                assert!(least > 0 || calls.len() == 1, "{form:?}: {text}");
                most = most.max(calls.len());
                if choice == Choice::Named(1) {
                    assert!(calls[0].starts_with("add "), "{text}");
                }
            }
            assert_eq!(most > 1, parallel && choice == Choice::Required, "{form:?}");
        }
    }
}

#[test]
fn marks_are_the_control_tokens_that_they_are() {
    let model = Model::new();
    let tools = set(Choice::Required, false);
    for (form, mark) in [
        (Form::MistralArgs, "[TOOL_CALLS]"),
        (Form::Phi, "<|tool_call|>"),
        (Form::FunctionGemma, "<start_function_call>"),
    ] {
        let rule = rule(&tools, form, None, |text| model.control(text)).unwrap();
        let mut guide = model.constraints.compile(&rule).unwrap().guide(&[]);
        let next = guide.look_ahead(&[]).unwrap();
        let Next::Tokens(mask) = &next[0] else { panic!("{next:?}") };
        let allowed: Vec<u32> = (0..model.bytes.len() as u32).filter(|id| mask.allows(*id)).collect();
        assert_eq!(allowed, [model.id(mark)], "{form:?}");
    }
}

#[test]
fn an_answer_that_may_call_is_text_or_a_valid_call() {
    let model = Model::new();
    let tools = set(Choice::Auto, true);
    for form in FORMS {
        let rule = rule(&tools, form, None, |text| model.control(text)).unwrap();
        let letters =
            |text: &str| text.bytes().map(|byte| model.id(&String::from(char::from(byte)))).collect::<Vec<_>>();
        let hello = letters("Hello.");
        assert_eq!(model.answer(&rule, &hello, 0, 1), "Hello.", "{form:?}");
        let Some(mark) = form.marks().first() else {
            let text = model.answer(&rule, &letters("{"), 1, 1);
            check(&read(form, None, &tools, &[&text]).2, &text);
            continue;
        };
        let mut begin = hello.clone();
        match model.control(mark) {
            Some(id) => begin.push(id),
            None => begin.extend(letters(mark)),
        }
        for seed in 0..10 {
            let text = model.answer(&rule, &begin, 0, seed);
            let (_, said, calls) = read(form, None, &tools, &[&text]);
            check(&calls, &text);
            assert_eq!(said, "Hello.", "{form:?}: {text}");
        }
    }
}

#[test]
fn thoughts_may_come_first() {
    let model = Model::new();
    let tools = set(Choice::Required, false);
    let letters = |text: &str| text.bytes().map(|byte| model.id(&String::from(char::from(byte)))).collect::<Vec<_>>();
    let marks = Thinking::of("</think>").unwrap();
    for is_open in [true, false] {
        let rule = rule(&tools, Form::Json, Some((marks, is_open)), |text| model.control(text)).unwrap();
        let mut begin = letters(if is_open { "Hm {" } else { "<think>Hm {" });
        begin.push(model.id("</think>"));
        let text = model.answer(&rule, &begin, 0, 1);
        let (thoughts, said, calls) = read(Form::Json, Some((marks, is_open)), &tools, &[&text]);
        check(&calls, &text);
        assert_eq!((thoughts.as_str(), said.as_str()), ("Hm {", ""), "{text}");
    }
}

#[test]
fn a_schema_that_cannot_be_kept_is_refused_by_its_tool_and_place() {
    let model = Model::new();
    let mut tools = set(Choice::Required, false);
    let refused = |tools: &ToolSet| {
        let refused = match rule(tools, Form::Hermes, None, |_| None) {
            Err(refused) => refused,
            Ok(rule) => model.constraints.compile(&rule).unwrap_err(),
        };
        (refused.field().into_owned(), refused.to_string())
    };
    for (schema, words) in [
        (json!({"not": {}}), "tools[1].parameters at /properties/x/not: `not` is not supported"),
        (json!({"type": "strin"}), "tools[1].parameters at /properties/x: Invalid type"),
    ] {
        tools.tools[1].shown.parameters = json!({"type": "object", "properties": {"x": schema}});
        let (field, message) = refused(&tools);
        assert_eq!(field, "tools[1].parameters");
        assert!(message.starts_with(words), "{message}");
    }
    tools.tools[1].strict = false;
    tools.choice = Choice::Auto;
    assert!(rule(&tools, Form::Hermes, None, |_| None).is_ok(), "only strict ones are guaranteed then");
}
