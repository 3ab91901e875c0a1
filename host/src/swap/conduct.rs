//! One swap from its request to the end of its watch window.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedMutexGuard, oneshot};
use tracing::{info, warn};

use super::behind::Behind;
use super::generation::Life;
use super::point::{Order, Switch, Switched, TryOut};
use super::prepare::{Candidate, close_in_time, open};
use super::shadow::{self, Tap};
use super::watch::{Trial, Verdict};
use super::{SwapError, SwapReport, SwapRequest, SwapResult, SwapStep, Trigger, WaitFor, WatchEnd};
use crate::control::{PluginFacts, StageControl};
use crate::plugin::{Engine, InterceptorInstance, PluginKind};
use crate::position::Position;
use crate::stage::Stage;

/// Limit: how long a swap waits for a runner to come to the end of its batch. It may be in a back-off, or wait for room in a
/// channel; an order that is not taken up by then is taken back.
const BOUNDARY_WAIT: Duration = Duration::from_secs(60);

/// What a swap needs to run by itself.
pub(crate) struct Conduct {
    pub stage: Arc<StageControl>,
    pub engine: Engine,
    pub request: SwapRequest,
    /// Nobody else swaps this stage while it is held: until the switch is over.
    pub turn: OwnedMutexGuard<()>,
}

type Answer = oneshot::Sender<Result<SwapReport, SwapError>>;

/// One use of the stage on its way from one generation to the next.
struct Way {
    from: Arc<Stage>,
    to: Arc<Stage>,
    ready: Option<InterceptorInstance>,
}

impl Conduct {
    /// Runs to the end of the watch window. `answer` is given as soon as the request wants it.
    pub async fn run(self, answer: Answer) {
        let number = self.stage.next_generation();
        let (trigger, wait_for) = (self.request.trigger, self.request.wait_for);
        let mut record = super::SwapRecord {
            at: SystemTime::now(),
            trigger,
            generation: number,
            plugin: None,
            result: SwapResult::Serving,
            pause: None,
            gap: None,
        };
        let name = self.stage.name().clone();
        let switched = self.switch(number, &mut record).await;
        let (turn, stage, trial, mut report) = match switched {
            Ok(switched) => switched,
            Err((stage, error)) => {
                warn!(stage = %name, step = error.step.word(), reason = error.reason, "swap refused; the serving generation goes on");
                record.result = SwapResult::Refused(error.clone());
                stage.refused(record);
                let _ = answer.send(Err(error));
                return;
            }
        };
        info!(
            stage = %name, generation = number, version = report.after.version, digest = report.after.digest,
            pause_us = report.pause.as_micros() as u64, "swapped"
        );
        drop(turn);
        let mut answer = Some(answer);
        if wait_for == WaitFor::Switch {
            tell(&mut answer, &report);
        }
        let end = watched(&stage, &trial, wait_for, &mut report, &mut answer).await;
        let result = match end {
            Verdict::Breach(reason) => Err(back(&stage, number, &reason).await),
            end => {
                stage.confirmed(number, &trial, report.gap);
                report.watch = WatchEnd::of(&end);
                Ok(report)
            }
        };
        if let Some(answer) = answer {
            // Whoever asked may have gone away.
            let _ = answer.send(result);
        }
    }

    /// Everything up to the switch of every use.
    async fn switch(
        self,
        number: u64,
        record: &mut super::SwapRecord,
    ) -> Result<(OwnedMutexGuard<()>, Arc<StageControl>, Arc<Trial>, SwapReport), (Arc<StageControl>, SwapError)> {
        let Self { stage, engine, request, turn } = self;
        let result = prepare_and_switch(&stage, &engine, &request, number, record).await;
        match result {
            Ok((trial, report)) => Ok((turn, stage, trial, report)),
            Err(error) => Err((stage, error)),
        }
    }
}

async fn prepare_and_switch(
    control: &Arc<StageControl>,
    engine: &Engine,
    request: &SwapRequest,
    number: u64,
    record: &mut super::SwapRecord,
) -> Result<(Arc<Trial>, SwapReport), SwapError> {
    let is_interceptor = control.kind() == PluginKind::Interceptor;
    if request.shadow.is_some() && !is_interceptor {
        let reason =
            format!("a {} cannot be shadowed: it acts on the world outside, and twice would be wrong", control.kind());
        return Err(
            SwapError::at(SwapStep::Shadow, reason).with_remedy("swap it without a shadow; the watch window goes back")
        );
    }
    let serving = control.live_uses()?;
    let candidate = Candidate::prepare(engine, &serving[0], control.delivery(), request).await?;
    let before = PluginFacts::of(&serving[0].plugin);
    let after = PluginFacts::of(&candidate.plugin);
    record.plugin = Some(after.clone());
    control.becomes_candidate(number, after.clone());
    let shadow = match request.shadow {
        Some(shadow) => {
            control.becomes(number, Life::Shadow);
            Some(shadowed(&serving, &candidate, number, shadow).await?)
        }
        None => None,
    };
    let mut ways = Vec::new();
    // Again: uses may have come and gone meanwhile.
    for from in control.live_uses()? {
        let to = Arc::new(candidate.stage(&from, number));
        let ready = match is_interceptor {
            true => Some(open::<InterceptorInstance>(&to, &Position::default()).await?),
            false => None,
        };
        ways.push(Way { from, to, ready });
    }
    let trial = Trial::new(request.watch, control.has_dead_letters(), Behind::of(control));
    control.begin_trial(&trial)?;
    let stages: Vec<_> = ways.iter().map(|way| (way.from.clone(), way.to.clone())).collect();
    let (pause, plugin_time) = switch_all(ways, request.watch, &trial).await?;
    record.pause = Some(pause);
    control.switched(number, &stages, record.clone());
    let report = SwapReport {
        stage: control.name().clone(),
        generation: number,
        before,
        after,
        new_imports: candidate.new_imports,
        shadow,
        pause,
        plugin_time,
        gap: None,
        usual_gap: None,
        watch: WatchEnd::Running,
    };
    Ok((trial, report))
}

/// Lets the candidate see live batches of the first use.
async fn shadowed(
    serving: &[Arc<Stage>],
    candidate: &Candidate,
    number: u64,
    request: super::ShadowRequest,
) -> Result<super::ShadowReport, SwapError> {
    let mut stage = candidate.stage(&serving[0], number);
    stage.context.grants = shadow::grants(&stage.context.grants);
    let instance = open::<InterceptorInstance>(&stage, &Position::default()).await?;
    let (tap, samples) = Tap::new();
    if !serving[0].point.order(Order::Shadow(tap)) {
        return Err(SwapError::at(SwapStep::Shadow, "the stage came to its end"));
    }
    let compared = shadow::compare(samples, instance, request).await;
    if let Ok(report) = &compared {
        info!(stage = %stage.name, generation = number, "shadow: {}", report.summary());
    }
    compared
}

/// Orders the switch at every use and waits for all. When one fails, those that have switched go back: the stage switches as one.
async fn switch_all(ways: Vec<Way>, watch: Duration, trial: &Arc<Trial>) -> Result<(Duration, Duration), SwapError> {
    let mut answers = Vec::new();
    for Way { from, to, ready } in ways {
        let (answer, answered) = oneshot::channel();
        let trial = (!watch.is_zero()).then(|| trial.clone());
        to.point.order(Order::Switch(Box::new(Switch { stage: to.clone(), ready, trial, answer })));
        answers.push((from, answered));
    }
    let (mut pause, mut plugin_time, mut done, mut failure) = (Duration::ZERO, Duration::ZERO, Vec::new(), None);
    for (from, answered) in answers {
        match at_boundary(&from, answered).await {
            Ok(switched) => {
                pause = pause.max(switched.pause);
                plugin_time = plugin_time.max(switched.plugin_time);
                if let Some(old) = switched.old {
                    close_in_time(&from, old).await;
                }
                done.push(from);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        None => Ok((pause, plugin_time)),
        Some(error) => {
            trial.decide(Verdict::Superseded);
            send_back(&done).await;
            Err(error)
        }
    }
}

/// A use's answer, or its order taken back when it does not come to the end of its batch.
async fn at_boundary<T>(from: &Stage, mut answered: oneshot::Receiver<Result<T, SwapError>>) -> Result<T, SwapError> {
    let at = |reason: &str| SwapError::at(SwapStep::Switch, reason);
    let answer = tokio::select! {
        answer = &mut answered => answer,
        () = tokio::time::sleep(BOUNDARY_WAIT) => match from.point.withdraw() {
            Some(_) => {
                let reason = format!("the stage did not come to the end of its batch within {BOUNDARY_WAIT:?}");
                return Err(at(&reason).with_remedy("see its last error: it may be waiting for the world outside"));
            }
            // Taken up: each of its steps is bounded.
            None => answered.await,
        },
    };
    answer.unwrap_or_else(|_| {
        let reason = "the stage came to its end, or its pipeline gave a transaction up, in the middle of the switch";
        Err(at(reason).with_remedy("look at its status, and try again"))
    })
}

/// Has a running source or sink make way for what it is to become, to see whether that opens, and go on as it was.
///
/// # Errors
/// Why it does not open.
pub(crate) async fn try_out(control: &StageControl, candidate: Stage) -> Result<(), SwapError> {
    let turn = control.turn();
    let _turn = turn.lock().await;
    let stage = Arc::new(candidate);
    let mut answers = Vec::new();
    for from in control.live_uses()? {
        let (answer, answered) = oneshot::channel();
        from.point.order(Order::Try(TryOut { stage: stage.clone(), answer }));
        answers.push((from, answered));
    }
    for (from, answered) in answers {
        at_boundary(&from, answered).await?;
    }
    Ok(())
}

/// Has uses go back to these generations, without comparing. What they are opened with has served before.
async fn send_back(stages: &[Arc<Stage>]) {
    let mut answers = Vec::new();
    for stage in stages {
        let (answer, answered) = oneshot::channel();
        stage.point.order(Order::Switch(Box::new(Switch { stage: stage.clone(), ready: None, trial: None, answer })));
        answers.push(answered);
    }
    for answered in answers {
        // A use that has ended needs no way back, and one that cannot let go is in its runner's hands.
        if let Ok(Ok(Switched { old: Some(mut old), .. })) = answered.await
            && let Err(error) = old.close().await
        {
            warn!(%error, "not closed in order");
        }
    }
}

/// Waits until the watch window is over; answers meanwhile whoever waits for less.
async fn watched(
    stage: &StageControl,
    trial: &Trial,
    wait_for: WaitFor,
    report: &mut SwapReport,
    answer: &mut Option<Answer>,
) -> Verdict {
    let mut states = trial.subscribe();
    let uses = stage.uses();
    loop {
        let state = states.borrow_and_update().clone();
        (report.gap, report.usual_gap) = (state.gap, state.usual_gap);
        if state.first_batches >= uses {
            stage.had_first_batch(report.generation, report.gap);
            if wait_for == WaitFor::FirstBatch {
                tell(answer, report);
            }
        }
        if let Some(verdict) = state.verdict {
            return verdict;
        }
        let ended = async {
            while stage.live_uses().is_ok() {
                // Seldom: a stage that ends is noticed by its status sooner.
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        };
        tokio::select! {
            // The sender is the trial's, which we hold.
            _ = states.changed() => {}
            () = tokio::time::sleep_until(trial.until()) => { trial.decide(Verdict::Passed); }
            () = ended => { trial.decide(Verdict::StageEnded); }
            reason = trial.worse_behind() => { trial.decide(Verdict::Breach(reason.into())); }
        }
    }
}

fn tell(answer: &mut Option<Answer>, report: &SwapReport) {
    if let Some(answer) = answer.take() {
        // Whoever asked may have gone away.
        let _ = answer.send(Ok(report.clone()));
    }
}

/// One use has gone back by itself: the others follow.
async fn back(stage: &Arc<StageControl>, number: u64, reason: &str) -> SwapError {
    let turn = stage.turn().lock_owned().await;
    let error = SwapError::at(SwapStep::Watch, reason);
    let rest = stage.went_back(number, reason);
    send_back(&rest).await;
    drop(turn);
    warn!(stage = %stage.name(), generation = number, reason, "switched back to the generation before");
    error.with_remedy("the generation before serves again; `wasmflow status` shows both")
}

impl WatchEnd {
    fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Passed | Verdict::Breach(_) => Self::Passed,
            Verdict::Superseded => Self::Superseded,
            Verdict::StageEnded => Self::StageEnded,
        }
    }
}

impl Trigger {
    /// As status and logs name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Rollback => "rollback",
            Self::File => "file",
        }
    }
}
