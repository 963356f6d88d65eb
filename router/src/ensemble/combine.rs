//! Several answers to one of them. Pure.

use std::collections::HashMap;

/// What counts of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ballot {
    /// Its text, normalised.
    pub(super) says: String,
    /// From 0 to 1.
    pub(super) confidence: f64,
}

/// The answer that is given, and how many say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Winner {
    pub(super) place: usize,
    pub(super) votes: usize,
}

/// Ballots of all experts, in the order of listing: `None` for one without an answer.
pub(super) type Ballots = [Option<Ballot>];

/// Answers that say the same.
struct Party {
    /// The most confident of them, the first listed of equals.
    best: usize,
    votes: usize,
    confidence: f64,
}

/// The answer that most give; of equally many votes, that with more confidence in sum, then the first listed.
pub(super) fn vote(ballots: &Ballots) -> Option<Winner> {
    parties(ballots).first().map(|party| Winner { place: party.best, votes: party.votes })
}

/// The most confident answer; the first listed of equals.
pub(super) fn best(ballots: &Ballots) -> Option<Winner> {
    let place = most_confident(ballots, |_| true)?;
    Some(Winner { place, votes: 1 })
}

/// Whether no answer that may still come changes what the vote gives. `missing` is how many may.
pub(super) fn is_decided(ballots: &Ballots, missing: usize) -> bool {
    let parties = parties(ballots);
    let votes = |place: usize| parties.get(place).map_or(0, |party| party.votes);
    votes(0) > votes(1) + missing
}

/// Whether all answers say the same.
pub(super) fn is_unanimous(ballots: &Ballots) -> bool {
    parties(ballots).len() == 1
}

/// The parties, the strongest first.
fn parties(ballots: &Ballots) -> Vec<Party> {
    let mut by_words: HashMap<&str, usize> = HashMap::new();
    let mut parties: Vec<Party> = Vec::new();
    for (place, ballot) in ballots.iter().enumerate() {
        let Some(ballot) = ballot else { continue };
        let index = *by_words.entry(&ballot.says).or_insert_with(|| {
            let says = |other: &Ballot| other.says == ballot.says;
            let best = most_confident(ballots, says).unwrap_or(place);
            parties.push(Party { best, votes: 0, confidence: 0.0 });
            parties.len() - 1
        });
        parties[index].votes += 1;
        parties[index].confidence += ballot.confidence;
    }
    // Stable: the first listed stays first among equals.
    parties.sort_by(|one, other| other.votes.cmp(&one.votes).then_with(|| other.confidence.total_cmp(&one.confidence)));
    parties
}

fn most_confident(ballots: &Ballots, counts: impl Fn(&Ballot) -> bool) -> Option<usize> {
    let counted = ballots.iter().enumerate().filter_map(|(place, ballot)| Some((place, ballot.as_ref()?)));
    let counted = counted.filter(|(_, ballot)| counts(ballot)).map(|(place, ballot)| (place, ballot.confidence));
    // Of equals `max_by` keeps the last.
    counted.rev().max_by(|one, other| one.1.total_cmp(&other.1)).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballots(said: &[(&str, f64)]) -> Vec<Option<Ballot>> {
        let ballot = |(says, confidence): &(&str, f64)| {
            (!says.is_empty()).then(|| Ballot { says: (*says).to_owned(), confidence: *confidence })
        };
        said.iter().map(ballot).collect()
    }

    #[test]
    fn most_votes_then_confidence_then_order() {
        #[allow(clippy::type_complexity)] // A table.
        let cases: [(&[(&str, f64)], Option<(usize, usize)>); 8] = [
            (&[], None),
            (&[("", 0.0), ("", 0.0)], None),
            (&[("a", 0.1), ("b", 0.9), ("a", 0.2)], Some((2, 2))),
            (&[("a", 0.4), ("b", 0.9)], Some((1, 1))),
            (&[("a", 0.5), ("b", 0.5)], Some((0, 1))),
            (&[("a", 0.3), ("b", 0.7), ("b", 0.1), ("a", 0.6)], Some((3, 2))),
            (&[("", 0.0), ("b", 0.0), ("a", 0.0)], Some((1, 1))),
            (&[("a", 0.5), ("a", 0.5)], Some((0, 2))),
        ];
        for (said, expected) in cases {
            let winner = vote(&ballots(said)).map(|winner| (winner.place, winner.votes));
            assert_eq!(winner, expected, "{said:?}");
        }
    }

    #[test]
    fn the_most_confident_and_the_first_of_equals() {
        let place = |said: &[(&str, f64)]| best(&ballots(said)).map(|winner| winner.place);
        assert_eq!(place(&[("a", 0.2), ("b", 0.8), ("a", 0.7)]), Some(1));
        assert_eq!(place(&[("", 0.0), ("b", 0.5), ("a", 0.5)]), Some(1));
        assert_eq!(place(&[("", 0.0)]), None);
    }

    #[test]
    fn a_vote_is_decided_when_nobody_can_overtake() {
        let decided = |said: &[(&str, f64)], missing| is_decided(&ballots(said), missing);
        assert!(decided(&[("a", 0.5), ("a", 0.5), ("", 0.0)], 1));
        // One more may draw level, and win by confidence.
        assert!(!decided(&[("a", 0.5), ("", 0.0)], 1));
        assert!(!decided(&[("a", 0.5), ("a", 0.5), ("b", 0.5), ("", 0.0)], 1));
        assert!(decided(&[("a", 0.5), ("a", 0.5), ("a", 0.5), ("b", 0.5), ("", 0.0)], 1));
        assert!(!decided(&[], 0));
        assert!(is_unanimous(&ballots(&[("a", 0.5), ("", 0.0), ("a", 0.1)])));
        assert!(!is_unanimous(&ballots(&[("a", 0.5), ("b", 0.1)])));
    }
}
