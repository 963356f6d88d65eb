//! The judge's prompt, and its word. Pure.

use slm_proto::v1::{
    Choice, GenerateRequest, Message, Messages, Sampling, generate_request::Input, sampling::Constraint,
};

use crate::classify::text;

/// Of the question, and of each answer: a judge is small, and has one context for all of them.
const QUESTION_BYTES_MAX: usize = 8 << 10;
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// A number, whatever pieces the tokenizer makes of it.
const TOKENS_MAX: u32 = 4;

/// Asks which of `answers` to the question of `request` is the best one: for its number, which alone is allowed.
///
/// The metadata stay, for they may say what must not leave.
pub(super) fn request(request: &GenerateRequest, answers: &[&str]) -> GenerateRequest {
    let numbers = (1..=answers.len()).map(|number| number.to_string()).collect();
    let message = Message { role: "user".to_owned(), content: prompt(text(request), answers), ..Message::default() };
    GenerateRequest {
        model: request.model.clone(),
        input: Some(Input::Messages(Messages { messages: vec![message] })),
        sampling: Some(Sampling {
            temperature: Some(0.0),
            constraint: Some(Constraint::Choice(Choice { strings: numbers })),
            ..Sampling::default()
        }),
        max_tokens: Some(TOKENS_MAX),
        request_id: request.request_id.clone(),
        metadata: request.metadata.clone(),
        priority: request.priority,
        ..GenerateRequest::default()
    }
}

fn prompt(question: &str, answers: &[&str]) -> String {
    let mut prompt = format!("Question:\n{}\n\n", beginning(question, QUESTION_BYTES_MAX));
    for (number, answer) in (1..).zip(answers) {
        prompt += &format!("Answer {number}:\n{}\n\n", beginning(answer, ANSWER_BYTES_MAX));
    }
    prompt + "Which answer to the question is the best one? Reply with its number and nothing else."
}

fn beginning(text: &str, bytes: usize) -> &str {
    let text = text.trim();
    &text[..text.floor_char_boundary(bytes)]
}

/// The place of the answer that the judge has chosen of so many.
pub(super) fn choice(word: &str, answers: usize) -> Option<usize> {
    let number: usize = word.trim().parse().ok()?;
    (1..=answers).contains(&number).then(|| number - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_sees_question_and_answers_and_may_say_a_number() {
        let asked = GenerateRequest {
            model: "team".to_owned(),
            input: Some(Input::Prompt(" What is the capital? ".to_owned())),
            metadata: [("data_policy".to_owned(), "LocalOnly".to_owned())].into(),
            priority: 3,
            logprobs: Some(5),
            explain: true,
            ..GenerateRequest::default()
        };
        let judged = request(&asked, &["Paris", "Rome"]);
        let Some(Input::Messages(messages)) = &judged.input else { panic!("messages") };
        assert_eq!(
            messages.messages[0].content,
            "Question:\nWhat is the capital?\n\nAnswer 1:\nParis\n\nAnswer 2:\nRome\n\nWhich answer to the question is the \
             best one? Reply with its number and nothing else."
        );
        let constraint = judged.sampling.and_then(|sampling| sampling.constraint);
        let numbers = Choice { strings: vec!["1".to_owned(), "2".to_owned()] };
        assert_eq!(constraint, Some(Constraint::Choice(numbers)));
        assert_eq!((judged.metadata, judged.priority), (asked.metadata, 3));
        assert_eq!((judged.explain, judged.logprobs), (false, None));
    }

    #[test]
    fn long_texts_are_cut_at_characters() {
        let long = "é".repeat(ANSWER_BYTES_MAX);
        assert_eq!(beginning(&long, 3), "é");
        assert!(prompt("", &[&long, &long]).len() < 2 * ANSWER_BYTES_MAX + 200);
    }

    #[test]
    fn a_word_is_a_number_of_an_answer() {
        assert_eq!([choice(" 2\n", 3), choice("3", 3)], [Some(1), Some(2)]);
        assert_eq!([choice("0", 3), choice("4", 3), choice("two", 3), choice("", 3)], [None; 4]);
    }
}
