//! How a question can end. The first way is that in which nothing goes wrong.

use crate::{
    poller::Question,
    scope::{Budget, Trouble},
    world::World,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should; for a commit that comes too late: a conflict.
    Done,
    /// An error, and nothing has happened.
    Fails,
    /// A read sees what was there a moment ago.
    Lags,
    /// The backend answers something else than rows.
    Trouble(Trouble),
    /// A commit is applied, an error is the answer.
    AnswerLost,
    /// A commit is given up, and may be applied later.
    LandsLater,
    /// A commit is applied, its answer lost, and the client library tries again: that is a conflict with itself.
    ToldAsConflict,
    /// The connection to the hub fails when this many messages are acknowledged.
    Sends { acknowledged: usize, rest: Rest },
    /// The hub refuses the message at this place for good.
    Refuses(usize),
}

/// What becomes of the messages behind the acknowledged ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Lost,
    /// The next one arrives, its acknowledgement is lost.
    OneArrives,
    /// All may still arrive, one after the other.
    ArrivesLater,
}

impl Outcome {
    pub fn is_fault(self) -> bool {
        self != Self::Done
    }
}

/// All ways in which the question can end now.
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
            // Behind a message that the hub refuses nothing goes out.
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
