//! Shutdown: the router first, which accepts nothing new and finishes what runs, then the workers and the egress.

use crate::{
    child::ChildOutput,
    event::{ChildId, Event},
    supervisor::{Stop, Supervisor},
};

impl Supervisor {
    /// Ends everything, and returns when nothing runs any more.
    pub(crate) async fn shut_down(mut self, stop: Stop) {
        self.router.process.stop();
        self.until(&stop, |up| up.router.process.has_ended()).await;
        self.egress.stop();
        for id in self.workers.ids() {
            self.reporter.finished(id);
            self.workers.stop(id);
        }
        self.until(&stop, |up| up.workers.ids().is_empty() && up.egress.process.has_ended()).await;
    }

    /// Takes in the ends of children until `done`.
    async fn until(&mut self, stop: &Stop, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            tokio::select! {
                () = stop.kill.cancelled(), if !self.killed => self.kill(),
                Some(event) = self.events.recv() => self.last_words(event),
            }
        }
    }

    fn kill(&mut self) {
        self.killed = true;
        self.router.process.kill();
        self.egress.process.kill();
        for id in self.workers.ids() {
            self.workers.kill(id);
        }
    }

    fn last_words(&mut self, event: Event) {
        match event {
            Event::Child(ChildId::Worker(id), ChildOutput::Exited(_)) => drop(self.workers.ended(id)),
            Event::Child(ChildId::Router, ChildOutput::Exited(_)) => drop(self.router.ended()),
            Event::Child(ChildId::Egress, ChildOutput::Exited(_)) => drop(self.egress.ended()),
            Event::Child(ChildId::Egress, ChildOutput::Log(line)) => self.reporter.log("egress", &line),
            Event::Child(ChildId::Router, ChildOutput::Log(line)) => self.reporter.log("router", &line),
            Event::Child(ChildId::Worker(_), ChildOutput::Log(line)) => self.reporter.log("worker", &line),
            _ => {}
        }
    }
}
