//! Lists how a question can end. In the first outcome nothing goes wrong.

use crate::{
    poller::Question,
    scope::{Budget, Trouble},
    world::World,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The normal end; for a commit that comes too late, a conflict.
    Done,
    /// An error, and nothing was changed.
    Fails,
    /// A stale read: it sees the state of a moment ago.
    Lags,
    /// The backend answers something other than rows.
    Trouble(Trouble),
    /// The commit is applied, but the answer is an error.
    AnswerLost,
    /// The sender gives up the commit, which may still be applied later.
    LandsLater,
    /// The commit is applied and its answer is lost. The client library tries again and gets a conflict with its own
    /// write.
    ToldAsConflict,
    /// The connection to the hub fails after this many acknowledgements.
    Sends { acknowledged: usize, rest: Rest },
    /// The hub refuses the message at this index for good.
    Refuses(usize),
}

/// What happens to the messages behind the acknowledged ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Lost,
    /// The next one arrives, but its acknowledgement is lost.
    OneArrives,
    /// All may still arrive later, one after the other.
    ArrivesLater,
}

impl Outcome {
    pub fn is_fault(self) -> bool {
        self != Self::Done
    }
}

/// All ways in which the question can end in this world.
pub fn outcomes(world: &World, question: &Question) -> Vec<Outcome> {
    let mut all = vec![Outcome::Done];
    let Budget { faults, .. } = world.left;
    if faults == 0 {
        return all;
    }
    match question {
        Question::Send(_) if world.scope.hub_is_away => {
            all = vec![Outcome::Sends { acknowledged: 0, rest: Rest::Lost }];
        }
        _ if world.scope.hub_is_away => {}
        Question::Cursor => {
            all.push(Outcome::Fails);
            if world.store.previous.is_some() {
                all.push(Outcome::Lags);
            }
        }
        Question::Record(_) => all.extend([Outcome::Fails, Outcome::Lags]),
        Question::Rows(_) => all.extend(world.scope.troubles.iter().copied().map(Outcome::Trouble)),
        Question::Commit(write) if world.store.takes(write) => {
            all.extend([Outcome::Fails, Outcome::AnswerLost, Outcome::LandsLater, Outcome::ToldAsConflict]);
        }
        Question::Commit(_) => all.push(Outcome::Fails),
        Question::Send(messages) => {
            // Nothing is sent behind a message that the hub refuses.
            let hub = &world.hub;
            let refused = messages.iter().position(|message| hub.refused.contains(&message.id));
            let most = refused.unwrap_or(messages.len());
            for (acknowledged, message) in messages.iter().enumerate().take(most) {
                let rests = [Rest::Lost, Rest::OneArrives, Rest::ArrivesLater];
                all.extend(rests.map(|rest| Outcome::Sends { acknowledged, rest }));
                if !hub.arrived.contains(&message.id) {
                    all.push(Outcome::Refuses(acknowledged));
                }
            }
            if refused.is_some() {
                all.push(Outcome::Sends { acknowledged: most, rest: Rest::Lost });
            }
        }
    }
    all
}
