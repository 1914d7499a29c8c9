//! The way in for requests with a body: the phase of the server, the limits of admission, the client's deadline, and
//! the body.

use std::net::Ipv4Addr;
use std::time::Instant;

use axum::extract::Request;

use super::body;
use super::deadline::Deadline;
use super::respond::HttpError;
use super::scope::Scope;
use crate::admission::RequestPermit;
use crate::metrics::{Observation, Stage};
use crate::state::{AppState, NotServing};
use crate::ticket::Ticket;
use crate::turns::Caller;

/// A request that was let in, with its body.
#[derive(Debug)]
pub(super) struct Entered {
    body: body::Read,
    caller: Caller,
    deadline: Deadline,
    observation: Observation,
    _permit: RequestPermit,
}

impl Entered {
    /// Lets a request in and reads its body. The body of a refused one is discarded, because many clients look for
    /// an answer only when they have sent everything.
    pub(super) async fn read(
        state: &AppState,
        request: Request,
        scope: &Scope,
    ) -> Result<Self, HttpError> {
        let (limits, load) = (state.config.request, state.config.load);
        let caller = caller(&request);
        let admitted =
            state.check_admits().map_err(NotServing::Phase).map_err(HttpError::NotReady).and_then(
                |()| {
                    let permit = state.admission.enter(caller).map_err(HttpError::Overloaded)?;
                    let deadline = Deadline::of(request.headers(), limits.deadline);
                    Ok((permit, deadline.map_err(HttpError::Invalid)?))
                },
            );
        let (permit, deadline) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                body::discard(request, load.body_timeout).await;
                return Err(error);
            }
        };
        let body_timeout = deadline.left(load.body_timeout)?;
        let observation = scope.observation();
        let began = Instant::now();
        let bytes = limits.max_body_bytes;
        let body = body::read(request, bytes, body_timeout, &state.admission).await?;
        observation.stage(Stage::Body, began);
        Ok(Self { body, caller, deadline, observation, _permit: permit })
    }

    /// Returns the body, which can be taken once. Its part of the memory stays taken until the request ends.
    pub(super) fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body.bytes)
    }

    /// Admits the queries of the request, which are answered within the server's deadline and its own.
    pub(super) fn admit(&self, state: &AppState, queries: usize) -> Result<Ticket, HttpError> {
        let limit = self.deadline.left(state.config.request.deadline)?;
        let ticket = state.admission.admit(self.caller, queries, limit);
        Ok(ticket.map_err(HttpError::Overloaded)?.observed(self.observation.clone()))
    }
}

/// Returns the one who sends a request. A request that came over no connection is the machine's own.
fn caller(request: &Request) -> Caller {
    let own = || Caller::of(Ipv4Addr::LOCALHOST.into());
    request.extensions().get().copied().unwrap_or_else(own)
}
