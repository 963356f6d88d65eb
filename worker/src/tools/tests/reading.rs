//! Answers of every form, whole and cut at every byte.

use slm_convert::chat::ChatToolCall;

use super::*;

/// The answer is read like this however it is cut.
fn check(form: Form, text: &str, said: &str, calls: &[&str]) {
    let tools = set(Choice::Auto, true);
    let expected = (String::new(), said.to_owned(), calls.iter().map(|&call| call.to_owned()).collect::<Vec<_>>());
    assert_eq!(read(form, None, &tools, &[text]), expected, "{form:?}: {text}");
    let cuts: Vec<usize> = (1..text.len()).filter(|cut| text.is_char_boundary(*cut)).collect();
    for (index, cut) in cuts.iter().enumerate() {
        assert_eq!(read(form, None, &tools, &[&text[..*cut], &text[*cut..]]), expected, "{form:?}: {text} at {cut}");
        for next in &cuts[index + 1..] {
            let parts = [&text[..*cut], &text[*cut..*next], &text[*next..]];
            assert_eq!(read(form, None, &tools, &parts), expected, "{form:?}: {parts:?}");
        }
    }
    assert_eq!(read(form, None, &tools, &letters(text)), expected, "{form:?}: {text} in letters");
}

fn letters(text: &str) -> Vec<&str> {
    text.char_indices().map(|(at, letter)| &text[at..at + letter.len_utf8()]).collect()
}

const OSLO: &str = r#"get_weather {"city":"Oslo"}"#;
const ADD: &str = r#"add {"a":1}"#;

#[test]
fn calls_of_every_form_are_found() {
    use Form::*;
    let json = r#"{"name": "get_weather", "arguments": {"city": "Oslo"}}"#;
    let add = r#"{"name": "add", "arguments": {"a": 1}}"#;
    for (form, text, said, calls) in [
        (Hermes, format!("<tool_call>\n{json}\n</tool_call>"), "", vec![OSLO]),
        (
            Hermes,
            format!("I look.\n\n<tool_call>\n{json}\n</tool_call>\n<tool_call>{add}</tool_call>\n"),
            "I look.",
            vec![OSLO, ADD],
        ),
        (Hermes, format!("<tool_call>\n{json}\n{add}\n</tool_call>"), "", vec![OSLO, ADD]),
        (Hermes, format!("<tool_call>{json}"), "", vec![OSLO]),
        (Hermes, r#"<tool_call>{"name": "add", "arguments": "{\"a\": 1}"}</tool_call>"#.into(), "", vec![ADD]),
        (Llama, r#"{"name": "get_weather", "parameters": {"city": "Oslo"}}"#.into(), "", vec![OSLO]),
        (Llama, format!("<|python_tag|>{json}; {add}"), "", vec![OSLO, ADD]),
        (MistralList, format!("[TOOL_CALLS][{json}, {add}]"), "", vec![OSLO, ADD]),
        (
            MistralArgs,
            r#"Well. [TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]add[ARGS]{"a": 1}"#.into(),
            "Well.",
            vec![OSLO, ADD],
        ),
        (MistralArgs, r#"[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"a": 1}"#.into(), "", vec![ADD]),
        (Phi, format!("<|tool_call|>[{json}]<|/tool_call|>"), "", vec![OSLO]),
        (Granite, format!("<|tool_call|>[{json}]"), "", vec![OSLO]),
        (Granite, format!("<tool_call>{json}</tool_call>"), "", vec![OSLO]),
        (
            FunctionGemma,
            "<start_function_call>call:get_weather{city:<escape>Oslo<escape>}<end_function_call>".into(),
            "",
            vec![OSLO],
        ),
        (
            FunctionGemma,
            "<start_function_call>call:add{a:1,deep:[true,{x:<escape>a, b}<escape>}],e:{}}<end_function_call>".into(),
            "",
            vec![r#"add {"a":1,"deep":[true,{"x":"a, b}"}],"e":{}}"#],
        ),
        (FunctionGemma, r#"<start_function_call>call:add{"a": 1}<end_function_call>"#.into(), "", vec![ADD]),
        (Gemma, "<|tool_call>call:get_weather{city:<|\"|>Oslo<|\"|>}<tool_call|>".into(), "", vec![OSLO]),
        (
            Xml,
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"
                .into(),
            "",
            vec![OSLO],
        ),
        (
            Xml,
            "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>".into(),
            "",
            vec![ADD],
        ),
        (Xml, format!("<tool_call>{json}</tool_call>"), "", vec![OSLO]),
        (Code, "<code>\nx = get_weather(city=\"Oslo\")\nprint(add(1))\n</code>".into(), "", vec![OSLO, ADD]),
        (
            Code,
            "<code>add(a=1, deep=[True, None, -2.5], d={'k': 'it\\'s'})</code>".into(),
            "",
            vec![r#"add {"a":1,"deep":[true,null,-2.5],"d":{"k":"it's"}}"#],
        ),
        (Json, format!("\n{json}\n{add}"), "", vec![OSLO, ADD]),
        (Json, format!("[{json}, {add}]"), "", vec![OSLO, ADD]),
        (Json, r#"{"type": "function", "function": {"name": "add", "parameters": {"a": 1}}}"#.into(), "", vec![ADD]),
        (Json, r#"{"name": "add"}"#.into(), "", vec!["add {}"]),
    ] {
        check(form, &text, said, &calls);
    }
}

/// What models add to a call, and what they leave out.
#[test]
fn calls_may_differ_from_what_is_taught() {
    use Form::*;
    let json = r#"{"name": "get_weather", "arguments": {"city": "Oslo"}}"#;
    let add = r#"{"name": "add", "arguments": {"a": 1}}"#;
    for (form, text, calls) in [
        (Json, format!("[{add} , {{\"name\": \"add\"}}, {json}]\n"), vec![ADD, "add {}", OSLO]),
        (
            MistralList,
            format!("[TOOL_CALLS][{}}}, \"id\": \"a}}]\"}}, {json}]", &add[..add.len() - 2]),
            vec![ADD, OSLO],
        ),
        (
            Hermes,
            format!("<tool_call>{}\n</tool_call>\n<tool_call>{json}</tool_call>", &add[..add.len() - 1]),
            vec![ADD, OSLO],
        ),
        (Hermes, format!("<tool_call>{{\"type\": \"function\", {}</tool_call>", &add[1..]), vec![ADD]),
        (Hermes, format!("<tool_call>[{add}, {json}]</tool_call>"), vec![ADD, OSLO]),
        (Hermes, format!("<tool_call>{json}</tool_ca"), vec![OSLO]),
        (Phi, format!("<|tool_call|>[{json}, {add}]"), vec![OSLO, ADD]),
        (Granite, format!("<|tool_call|>[{json}"), vec![OSLO]),
        (Llama, format!("{json}; {add}"), vec![OSLO, ADD]),
    ] {
        check(form, &text, "", &calls);
    }
}

#[test]
fn what_is_no_call_stays_as_it_is() {
    use Form::*;
    for (form, text) in [
        (Hermes, "Use `<tool_call>` for calls, or </tool_call>."),
        (Hermes, "<tool_call>{\"name\": \"nobody\", \"arguments\": {}}</tool_call> and more"),
        (Hermes, "<tool_call>{\"name\": \"add\", \"arguments\": [1]}</tool_call>"),
        (Hermes, "a <tool_call>{\"name\": \"add\", \"arguments\":"),
        (Hermes, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"ad"),
        (Hermes, "  white space \n\n stays \n"),
        (Hermes, "a <tool_cal"),
        (Llama, "Here: {\"name\": \"add\", \"parameters\": {\"a\": 1}}"),
        (Llama, "<|python_tag|>brave_search.call(query=\"x\")"),
        (Json, "{\"city\": \"Oslo\"}"),
        (Json, "[1, 2]"),
        (Json, "{"),
        (Json, "Hello {\"name\": \"add\"}"),
        (MistralArgs, "[TOOL_CALLS]add[ARGS]1"),
        (MistralArgs, "[TOOL_CALLS]add"),
        (MistralList, "[TOOL_CALLS] [{\"name\": 5}]"),
        (MistralList, "[TOOL_CALLS] [{\"name\": \"add\"}"),
        (Phi, "<|tool_call|>[]<|/tool_call|>"),
        (FunctionGemma, "<start_function_call>call:add{a:<escape>1}<end_function_call>"),
        (FunctionGemma, "<start_function_call>add{}"),
        (Xml, "<tool_call>\n<function=add>\n<parameter=a>1</function></tool_call>"),
        (Xml, "<tool_call>hm"),
        (Code, "<code>\nimport os\nadd(a=1)\n</code>"),
        (Code, "<code>add(a=1</code>"),
        (Code, "<code>add(a=1)"),
    ] {
        // Code without an end that is whole otherwise is a call; all others are text.
        let calls: &[&str] = if text.ends_with("<code>add(a=1)") { &[ADD] } else { &[] };
        check(form, text, if calls.is_empty() { text } else { "" }, calls);
    }
}

#[test]
fn a_call_after_something_that_is_none_is_found() {
    let call = r#"<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>"#;
    check(Form::Hermes, &format!("x <tool_call> y {call}"), "x <tool_call> y", &[ADD]);
    check(Form::Hermes, &format!("{call}\nDone."), "\nDone.", &[ADD]);
}

#[test]
fn one_call_is_the_last_where_only_one_may_be() {
    let tools = set(Choice::Auto, false);
    let call = r#"<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>"#;
    let (_, said, calls) = read(Form::Hermes, None, &tools, &["a ", call, call, " b"]);
    assert_eq!((said.as_str(), calls), ("a", vec![ADD.to_owned()]));
    let both = r#"[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}, {"name": "add"}]"#;
    assert_eq!(read(Form::MistralList, None, &tools, &[both]).2, [ADD]);
}

#[test]
fn thoughts_come_before_calls() {
    let tools = set(Choice::Auto, true);
    let marks = Thinking::of("</think>");
    let text =
        "I could <tool_call>.\n</think>\n\n<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>";
    let expected = ("I could <tool_call>.".to_owned(), String::new(), vec![ADD.to_owned()]);
    assert_eq!(read(Form::Hermes, marks.map(|marks| (marks, true)), &tools, &[text]), expected);
    let opened = format!("<think>\n{text}");
    let letters = letters(&opened);
    assert_eq!(read(Form::Hermes, marks.map(|marks| (marks, false)), &tools, &letters), expected);
}

/// A call that ends too early, or in what is no JSON, has the arguments that came, which begin an object.
#[test]
fn a_call_that_has_begun_stays_one() {
    use Form::*;
    let cut = r#"{"name": "add", "arguments": {"a": 1, "deep": [tr"#;
    let kept = r#"add {"a":1,"deep":[tr"#;
    for (form, text, said, calls) in [
        (Hermes, format!("I add.\n<tool_call>{cut}"), "I add.", vec![kept]),
        (Llama, cut.to_owned(), "", vec![kept]),
        (MistralList, format!("[TOOL_CALLS][{cut}"), "", vec![kept]),
        (MistralArgs, "[TOOL_CALLS]add[ARGS]{\"a\": ".into(), "", vec![r#"add {"a":"#]),
        (Phi, format!("<|tool_call|>[{cut}"), "", vec![kept]),
        (Granite, format!("<|tool_call|>[{cut}"), "", vec![kept]),
        (Json, format!("{{\"name\": \"add\", \"arguments\": {{}}}}\n{cut}"), "", vec!["add {}", kept]),
        (Json, r#"{"name": "add", "arguments": {"a": True}} Well."#.into(), "True}} Well.", vec![r#"add {"a":"#]),
        (
            Hermes,
            "<tool_call>{\"name\": \"add\", \"arguments\": {a: 1}}\n</tool_call>".into(),
            "a: 1}}\n</tool_call>",
            vec!["add {"],
        ),
    ] {
        check(form, &text, said, &calls);
        let (_, has_called) = streamed(form, None, &set(Choice::Auto, true), &[&text]);
        assert!(!has_called, "{form:?}: {text}");
    }
    let whole = r#"{"name": "add", "arguments": {"a": 1}}"#;
    assert!(streamed(Json, None, &set(Choice::Auto, true), &[whole]).1);
    // Others stay text until they are whole.
    for (form, text) in [
        (Gemma, "<|tool_call>call:add{a:1"),
        (Xml, "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>"),
        (Hermes, r#"<tool_call>{"name": "nobody", "arguments": {"a": 1"#),
    ] {
        check(form, text, text, &[]);
    }
}

/// Name and arguments come as they are written, where arguments are JSON at the end of a call.
#[test]
fn arguments_come_in_pieces() {
    use Form::*;
    let tools = set(Choice::Auto, true);
    for form in [Hermes, Llama, MistralList, MistralArgs, Phi, Granite, Json] {
        let call =
            ChatToolCall { id: String::new(), name: "add".into(), arguments: json!({"a": 1, "deep": [true, false]}) };
        let text = form.wire().write(&[call]);
        let mut reader = AnswerReader::new(None, Some((form, tools.clone())));
        let mut pieces = Vec::new();
        for letter in letters(&text) {
            let mut delta = Delta::default();
            reader.push(letter.to_owned(), &mut delta);
            assert!(delta.text.is_empty(), "{form:?}: {delta:?}");
            pieces.extend(delta.tool_calls.into_iter().map(|part| (part.name, part.arguments)));
        }
        assert!(reader.has_called(), "{form:?}");
        assert_eq!(pieces[0], ("add".to_owned(), "{".to_owned()), "{form:?}");
        let rest: Vec<&str> = pieces[1..].iter().map(|(_, arguments)| arguments.as_str()).collect();
        assert_eq!(rest, letters(r#""a":1,"deep":[true,false]}"#), "{form:?}");
        assert!(pieces[1..].iter().all(|(name, _)| name.is_empty()), "{form:?}");
    }
}
