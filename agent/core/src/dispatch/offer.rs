//! Which tools the model is offered. Foreign definitions have a budget, so that they cannot fill the context.

use outpost_runtime::prompt::tool_list;
use outpost_runtime::{Capabilities, ToolSpec};
use outpost_tools::Source;

use crate::measure::Measure;
use crate::report::{LeftOut, OfferReport};

/// A tool that could be offered, and who wrote its definition.
pub(super) type Candidate = (ToolSpec, Source);

/// The tools of a turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Offer {
    /// Those offered, and those that found no room.
    pub report: OfferReport,
    /// Whether one has an untrusted definition: guarded calls then wait for a person.
    pub foreign: bool,
}

impl Offer {
    /// The tools that the model is offered.
    pub fn tools(&self) -> &[ToolSpec] {
        &self.report.tools
    }

    /// The tools that a `call` may name: those, and what the model was not made for.
    pub fn callable(&self) -> Vec<ToolSpec> {
        [&self.report.tools[..], &self.report.by_call].concat()
    }

    /// Chooses tools for the model: those that it was made for and, by budget, our own always, then those of trusted sources,
    /// then the rest.
    pub(super) fn of(
        mut candidates: Vec<Candidate>,
        capabilities: &Capabilities,
        measure: &Measure,
    ) -> Self {
        candidates.sort_by_key(|(_, source)| *source);
        let mut offer = Self::default();
        let mut used = 0;
        for (tool, source) in candidates {
            if !capabilities.tools.include(&tool.name) {
                offer.report.by_call.push(tool);
                continue;
            }
            let tokens = measure.tokens(&tool_list(std::slice::from_ref(&tool)));
            let (each, all) = (measure.definition(), measure.definitions());
            let reason = if source == Source::Own {
                None
            } else if tokens > each {
                Some(format!("its definition has {tokens} tokens, and one may have {each}"))
            } else if used + tokens > all {
                Some(format!(
                    "its definition has {tokens} tokens, and {} of {all} are left for it",
                    all.saturating_sub(used)
                ))
            } else {
                None
            };
            if let Some(reason) = reason {
                offer.report.left_out.push(LeftOut { name: tool.name, reason });
                continue;
            }
            used += tokens;
            offer.foreign |= source == Source::Foreign;
            offer.report.tools.push(tool);
        }
        offer
    }
}

#[cfg(test)]
mod tests {
    use outpost_runtime::capabilities::Names;
    use serde_json::json;

    use super::*;

    /// A definition of about so many bytes.
    fn tool(name: &str, bytes: usize, source: Source) -> Candidate {
        let description = "x".repeat(bytes);
        (ToolSpec { name: name.into(), description, schema: json!({"type": "object"}) }, source)
    }

    fn names(offer: &Offer) -> (Vec<&str>, Vec<&str>) {
        let offered = offer.tools().iter().map(|tool| tool.name.as_str());
        let left_out = offer.report.left_out.iter().map(|tool| tool.name.as_str());
        (offered.collect(), left_out.collect())
    }

    #[test]
    fn foreign_definitions_have_a_budget_each_and_together_and_our_own_come_first() {
        // A token a byte: 1000 for one, 4000 for all.
        let measure = Measure::new(str::len, 8000);
        let offer = Offer::of(
            vec![
                tool("foreign", 700, Source::Foreign),
                tool("huge", 1001, Source::Foreign),
                tool("own", 2000, Source::Own),
                tool("second", 700, Source::Foreign),
                tool("small", 10, Source::Foreign),
                tool("trusted", 500, Source::Trusted),
                tool("trusted_huge", 1001, Source::Trusted),
            ],
            &Capabilities::default(),
            &measure,
        );
        let offered = vec!["own", "trusted", "foreign", "small"];
        assert_eq!(names(&offer), (offered, vec!["trusted_huge", "huge", "second"]));
        assert!(offer.foreign);
        let reasons: Vec<&str> =
            offer.report.left_out.iter().map(|tool| tool.reason.as_str()).collect();
        assert!(reasons[1].contains("one may have 1000"), "{reasons:?}");
        assert!(reasons[2].contains("of 4000 are left"), "{reasons:?}");
    }

    #[test]
    fn a_turn_is_sure_of_its_tools_where_no_foreign_one_is_offered() {
        let measure = Measure::new(str::len, 8000);
        let any = Capabilities::default();
        let own = || tool("own", 7000, Source::Own);
        let offer = Offer::of(vec![own(), tool("foreign", 10, Source::Foreign)], &any, &measure);
        assert_eq!(names(&offer), (vec!["own"], vec!["foreign"]));
        assert!(!offer.foreign, "what is left out cannot instruct");
        let trusted = vec![tool("trusted", 10, Source::Trusted)];
        assert!(!Offer::of(trusted, &any, &measure).foreign);
    }

    #[test]
    fn what_the_model_was_not_made_for_is_kept_for_calls_and_cannot_instruct() {
        let measure = Measure::new(str::len, 8000);
        let tools = Names::Only(vec!["own".into()]);
        let narrow = Capabilities { tools, ..Capabilities::default() };
        let candidates = vec![
            tool("own", 10, Source::Own),
            tool("notes", 10, Source::Own),
            tool("foreign", 5000, Source::Foreign),
        ];
        let offer = Offer::of(candidates, &narrow, &measure);
        assert_eq!(names(&offer), (vec!["own"], vec![]));
        let callable = offer.callable();
        let callable: Vec<&str> = callable.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(callable, ["own", "notes", "foreign"]);
        assert!(!offer.foreign);
    }
}
