//! Bytes of one connection, with limits of time: for the head of a request, for the pause between two
//! requests, and for a client that takes nothing of its answer. Work on a request is not limited here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The longest times that a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The time for a head, from its first byte on; for the first one, from the start of the connection on.
    pub(super) head: Duration,
    /// The time between two requests.
    pub(super) idle: Duration,
    /// The time in which a client takes no byte of its answer.
    pub(super) send: Duration,
}

/// The part of an exchange that a connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first byte of a head has come, or the connection is new.
    Head,
    /// A request is read or answered.
    Busy,
    /// The last request is answered.
    Idle,
}

/// The phase of a connection, which its stream and its requests share. Each change has a number, so that an
/// alarm is set anew for each.
#[derive(Debug, Default)]
pub(super) struct PhaseCell(AtomicU64);

impl PhaseCell {
    const PHASES: [Phase; 3] = [Phase::Head, Phase::Busy, Phase::Idle];

    fn get(&self) -> (u64, Phase) {
        let change = self.0.load(Ordering::Relaxed);
        (change, Self::PHASES[(change % 3) as usize])
    }

    /// Goes forward to a phase. One task drives both the stream and the requests of a connection.
    fn set(&self, phase: Phase) {
        let (change, _) = self.get();
        let next = (change + 1..change + 4).find(|next| Self::PHASES[(next % 3) as usize] == phase);
        self.0.store(next.expect("each phase is one of three in turn"), Ordering::Relaxed);
    }

    /// Records that a head is complete.
    pub(super) fn begin(&self) {
        self.set(Phase::Busy);
    }

    /// Records that there is an answer.
    pub(super) fn end(&self) {
        self.set(Phase::Idle);
    }
}

/// A stream that fails when its client takes too long.
#[derive(Debug)]
pub(super) struct PatientStream<S> {
    stream: S,
    patience: Patience,
    phase: Arc<PhaseCell>,
    reading: Alarm,
    writing: Alarm,
}

/// A timer, and the change of phase that it was set for.
#[derive(Debug, Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    set_for: Option<u64>,
}

impl Alarm {
    /// Fails once `limit` has passed since the first call for this `change`.
    fn poll(
        &mut self,
        change: u64,
        limit: Duration,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.set_for != Some(change) {
            self.set_for = Some(change);
            let deadline = Instant::now() + limit;
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(deadline),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        let sleep = self.sleep.as_mut().expect("an alarm that is set has a timer");
        sleep.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn unset(&mut self) {
        self.set_for = None;
    }
}

impl<S> PatientStream<S> {
    pub(super) fn new(stream: S, patience: Patience, phase: Arc<PhaseCell>) -> Self {
        let (reading, writing) = (Alarm::default(), Alarm::default());
        Self { stream, patience, phase, reading, writing }
    }

    /// Passes on the outcome of a write, or fails if the client has taken nothing for too long.
    fn written<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.writing.unset();
            return outcome;
        }
        // The phase does not matter: an alarm is unset by the next byte that is taken.
        match self.writing.poll(0, self.patience.send, context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        let (change, phase) = self.phase.get();
        if outcome.is_ready() {
            if phase == Phase::Idle && buffer.filled().len() > before {
                self.phase.set(Phase::Head);
            }
            return outcome;
        }
        let limit = match phase {
            Phase::Head => self.patience.head,
            Phase::Idle => self.patience.idle,
            Phase::Busy => return Poll::Pending,
        };
        self.reading.poll(change, limit, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.written(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.written(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.written(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.written(outcome, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(100),
        send: Duration::from_secs(30),
    };

    fn stream() -> (PatientStream<DuplexStream>, DuplexStream, Arc<PhaseCell>) {
        let (near, far) = duplex(8);
        let phase = Arc::<PhaseCell>::default();
        (PatientStream::new(near, PATIENCE, Arc::clone(&phase)), far, phase)
    }

    /// Returns the seconds after which a read fails.
    async fn seconds_to_failure(stream: &mut PatientStream<DuplexStream>) -> u64 {
        let start = Instant::now();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_byte_by_byte_ends_in_time() {
        let (mut stream, mut far, _phase) = stream();
        let dripping = tokio::spawn(async move {
            while far.write_u8(b'G').await.is_ok() {
                tokio::time::advance(Duration::from_secs(3)).await;
            }
        });
        let start = Instant::now();
        let error = loop {
            if let Err(error) = stream.read_u8().await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        drop(stream);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_between_requests_may_be_longer_than_a_head() {
        let (mut stream, mut far, phase) = stream();
        for _ in 0..2 {
            phase.begin();
            phase.end();
            far.write_u8(b'G').await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'G');
            assert_eq!(seconds_to_failure(&mut stream).await, 10, "a head has begun");
            phase.begin();
            phase.end();
            assert_eq!(seconds_to_failure(&mut stream).await, 100);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_on_a_request_has_no_limit_here() {
        let (mut stream, mut far, phase) = stream();
        phase.begin();
        let limit = Duration::from_hours(1);
        assert!(tokio::time::timeout(limit, stream.read_u8()).await.is_err());
        far.write_u8(b'x').await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_left() {
        let (mut stream, mut far, phase) = stream();
        phase.begin();
        stream.write_all(&[0; 8]).await.unwrap();
        let start = Instant::now();
        let error = stream.write_u8(0).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
        far.read_u8().await.unwrap();
        stream.write_u8(0).await.unwrap();
    }
}
