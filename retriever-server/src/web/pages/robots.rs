//! robots.txt and the pace of requests, host by host. As RFC 9309 says, a missing file allows everything, and
//! one that cannot be reached allows nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use reqwest::Url;
use texting_robots::Robot;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{AGENT, PageFault};
use crate::upstream::exchange::Reply;
use crate::upstream::pace::Pace;

/// Hosts that are remembered.
const MAX_HOSTS: u64 = 4096;

/// Time for which a robots.txt is obeyed without a new look; RFC 9309 allows a day.
const RULES_TTL: Duration = Duration::from_hours(1);

/// Pages of one host that are fetched concurrently.
const MAX_CONCURRENT_PAGES: usize = 2;

/// Requests per second to one host that asks for no delay.
const REQUESTS_PER_SECOND: f64 = 2.0;

/// Part of a robots.txt that is read; RFC 9309 asks for at least this much.
const MAX_ROBOTS_BYTES: usize = 500 * 1024;

/// The hosts with their rules.
#[derive(Debug)]
pub(super) struct Hosts {
    rules: Cache<String, Arc<Rules>>,
}

/// The rules of one host.
pub(super) struct Rules {
    robot: Option<Robot>,
    pace: Pace,
    slots: Semaphore,
}

impl fmt::Debug for Rules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rules").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl Hosts {
    pub(super) fn new() -> Self {
        let rules = Cache::builder().max_capacity(MAX_HOSTS).time_to_live(RULES_TTL).build();
        Self { rules }
    }

    /// Returns the rules of a host, whose robots.txt is `fetched` if they are not known. A failure is not
    /// remembered.
    pub(super) async fn rules(
        &self,
        url: &Url,
        fetched: impl Future<Output = Result<Reply, PageFault>>,
    ) -> Result<Arc<Rules>, PageFault> {
        let origin = url.origin().ascii_serialization();
        let read = async { read(&fetched.await?).map(Arc::new) };
        let rules = self.rules.try_get_with_by_ref(&origin, read).await;
        rules.map_err(|fault: Arc<PageFault>| (*fault).clone())
    }
}

fn read(reply: &Reply) -> Result<Rules, PageFault> {
    let status = reply.status.as_u16();
    let robot = match status {
        200..=299 => {
            let text = &reply.body[..reply.body.len().min(MAX_ROBOTS_BYTES)];
            let robot = Robot::new(AGENT, text);
            Some(robot.map_err(|error| PageFault::Robots(error.to_string()))?)
        }
        400..=499 => None,
        _ => return Err(PageFault::Robots(format!("status {status}"))),
    };
    let delay_s = robot.as_ref().and_then(|robot| robot.delay).filter(|delay_s| *delay_s > 0.0);
    let rate = delay_s.map_or(REQUESTS_PER_SECOND, |delay_s| 1.0 / f64::from(delay_s));
    let pace = Pace::new(Some(rate), 1);
    Ok(Rules { robot, pace, slots: Semaphore::new(MAX_CONCURRENT_PAGES) })
}

impl Rules {
    /// Waits until a page may be fetched. The permit counts while it is fetched.
    pub(super) async fn admit(
        &self,
        url: &Url,
        deadline: Instant,
    ) -> Result<tokio::sync::SemaphorePermit<'_>, PageFault> {
        if !self.robot.as_ref().is_none_or(|robot| robot.allowed(url.as_str())) {
            return Err(PageFault::Robots("the page is not allowed".to_owned()));
        }
        let late = || PageFault::Failed("the host may not be asked so soon".to_owned());
        self.pace.wait(deadline, || false).await.map_err(|_| late())?;
        self.slots.acquire().await.map_err(|_| late())
    }
}
