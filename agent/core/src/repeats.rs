//! Questions that come a second time. MQTT delivers at least once, and what is asked may lock a door: one that comes again is
//! not dealt with again, and is given the answer of the first. Pure: time is an argument.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::event::{Ask, EventId, Origin};
use crate::report::AnswerReport;

/// A question that comes later than this after the first is another.
const MEMORY: Duration = Duration::from_mins(10);
/// Questions that are remembered at most; then the oldest is forgotten.
const MOST: usize = 64;
/// A longer answer is not kept, bytes.
const LONGEST: usize = 16 * 1024;

/// The latest questions that can be told from each other, and their answers.
#[derive(Debug, Default)]
pub struct Repeats {
    known: VecDeque<Known>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Known {
    /// Of all that was asked, and under which transaction.
    digest: u64,
    event: EventId,
    asked: Instant,
    answer: Option<AnswerReport>,
}

/// What is known of a question.
#[derive(Debug, PartialEq)]
pub enum Repeat {
    /// Nothing: it is to be dealt with.
    New,
    /// It came before and is being dealt with: its answer will come.
    UnderWay,
    /// It came before, and this was the answer.
    Answered(Box<AnswerReport>),
}

impl Repeats {
    /// What is known of a question; one that is new is remembered. One without transaction or correlation data is always new:
    /// it may be asked twice on purpose.
    pub fn ask(&mut self, ask: &Ask, event: EventId, now: Instant) -> Repeat {
        let correlation = ask.respond_to.as_ref().and_then(|to| to.correlation.as_ref());
        if ask.origin != Origin::Ask || (ask.transaction.is_none() && correlation.is_none()) {
            return Repeat::New;
        }
        self.known.retain(|known| now < known.asked + MEMORY);
        let digest = self.digest(ask);
        if let Some(known) = self.known.iter().find(|known| known.digest == digest) {
            return known.answer.clone().map_or(Repeat::UnderWay, |answer| {
                Repeat::Answered(Box::new(AnswerReport { repeated: true, ..answer }))
            });
        }
        if self.known.len() == MOST {
            self.known.pop_front();
        }
        self.known.push_back(Known { digest, event, asked: now, answer: None });
        Repeat::New
    }

    /// A question was answered.
    pub fn answered(&mut self, answer: &AnswerReport) {
        let Some(known) = self.known.iter_mut().find(|known| known.event == answer.event) else {
            return;
        };
        let result = answer.result.as_ref().map_or(0, |result| result.to_string().len());
        known.answer = Some(if answer.text.len() + result <= LONGEST {
            answer.clone()
        } else {
            let error = "asked and answered before, and the answer is too long to be kept".into();
            let text = String::new();
            let result = None;
            AnswerReport { text, result, error: Some(error), ..answer.clone() }
        });
    }

    /// Nothing was done about a question: it may be asked again.
    pub fn forget(&mut self, event: EventId) {
        self.known.retain(|known| known.event != event);
    }

    fn digest(&self, ask: &Ask) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        let Ask { transaction, prompt, task, language, audio, images, stream, .. } = ask;
        (transaction, prompt, language, audio, images, stream).hash(&mut hasher);
        task.map(|task| task as u8).hash(&mut hasher);
        if let Some(to) = &ask.respond_to {
            (&to.topic, &to.correlation).hash(&mut hasher);
        }
        if let Some(call) = &ask.call {
            call.name.hash(&mut hasher);
            for (name, argument) in &call.arguments {
                (name, argument.to_string()).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use outpost_runtime::ToolCall;
    use serde_json::json;

    use super::*;
    use crate::event::RespondTo;

    fn ask(transaction: &str) -> Ask {
        let transaction = Some(transaction.into());
        let prompt = "lock the door".into();
        Ask { transaction, prompt, ..Ask::default() }
    }

    fn answer(event: EventId, text: &str) -> AnswerReport {
        AnswerReport {
            event,
            text: text.into(),
            error: None,
            ..AnswerReport::refusal(String::new())
        }
    }

    #[test]
    fn a_question_that_comes_again_is_given_the_answer_of_the_first() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        let event = EventId::new();
        assert_eq!(repeats.ask(&ask("1"), event, now), Repeat::New);
        assert_eq!(repeats.ask(&ask("1"), EventId::new(), now), Repeat::UnderWay);
        repeats.answered(&answer(event, "Done."));
        let again = repeats.ask(&ask("1"), EventId::new(), now + Duration::from_mins(9));
        let expected = AnswerReport { repeated: true, ..answer(event, "Done.") };
        assert_eq!(again, Repeat::Answered(Box::new(expected)));
        let later = repeats.ask(&ask("1"), EventId::new(), now + Duration::from_mins(10));
        assert_eq!(later, Repeat::New);
    }

    #[test]
    fn whatever_differs_is_another_question() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        let call = |level: u8| {
            let arguments = json!({"level": level}).as_object().cloned().unwrap();
            Some(Box::new(ToolCall { name: "set_volume".into(), arguments }))
        };
        let to = |correlation: Option<Vec<u8>>| {
            Some(RespondTo { topic: "app/answers".into(), correlation })
        };
        let nameless = Ask { prompt: "next song".into(), ..Ask::default() };
        let questions = [
            ask("1"),
            ask("2"),
            Ask { prompt: "unlock the door".into(), ..ask("1") },
            Ask { images: vec![vec![1]], ..ask("1") },
            Ask { audio: Some(vec![1]), ..ask("1") },
            Ask { stream: true, ..ask("1") },
            Ask { call: call(1), ..ask("1") },
            Ask { call: call(2), ..ask("1") },
            Ask { respond_to: to(Some(vec![1])), ..nameless.clone() },
            Ask { respond_to: to(Some(vec![2])), ..nameless.clone() },
        ];
        for question in &questions {
            assert_eq!(repeats.ask(question, EventId::new(), now), Repeat::New, "{question:?}");
        }
        for question in &questions {
            let again = repeats.ask(question, EventId::new(), now);
            assert_eq!(again, Repeat::UnderWay, "{question:?}");
        }
        // Two who say the same, and a plan that comes due again, mean it.
        let planned = Ask { origin: Origin::Schedule, ..ask("schedule/1") };
        for question in [nameless.clone(), Ask { respond_to: to(None), ..nameless }, planned] {
            for _ in 0..2 {
                assert_eq!(repeats.ask(&question, EventId::new(), now), Repeat::New);
            }
        }
    }

    #[test]
    fn the_memory_is_bounded_and_what_came_to_nothing_may_be_asked_again() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        let event = EventId::new();
        repeats.ask(&ask("0"), event, now);
        repeats.answered(&answer(event, &"a".repeat(LONGEST + 1)));
        let Repeat::Answered(long) = repeats.ask(&ask("0"), EventId::new(), now) else {
            panic!("it was answered")
        };
        assert!(long.text.is_empty() && long.error.unwrap().contains("too long"));
        for number in 1..=MOST {
            assert_eq!(repeats.ask(&ask(&number.to_string()), EventId::new(), now), Repeat::New);
        }
        assert_eq!(repeats.known.len(), MOST);
        assert_eq!(repeats.ask(&ask("0"), EventId::new(), now), Repeat::New, "long ago");

        let refused = EventId::new();
        repeats.ask(&ask("refused"), refused, now);
        repeats.forget(refused);
        assert_eq!(repeats.ask(&ask("refused"), EventId::new(), now), Repeat::New);
    }
}
