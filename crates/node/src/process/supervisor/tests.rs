//! Children are small programs of the shell.

use std::fs;

use rustix::process::{Pid, test_kill_process};
use tokio::time::timeout;

use super::*;
use crate::{home::Home, process::Service};

/// Only failures take so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A supervisor of shell scripts, which are the first of a child's further arguments.
fn supervisor(grace: Duration) -> (Supervisor, CancellationToken) {
    let shutdown = CancellationToken::new();
    let mut supervisor = Supervisor::new(shutdown.clone());
    supervisor.conduct = Conduct {
        command: |spec| {
            let mut command = Command::new("sh");
            command.arg("-c").args(&spec.extra_args);
            command.current_dir(spec.home.root());
            Ok(command)
        },
        backoff: Backoff::from(Duration::from_millis(1)),
        grace,
        ..Conduct::default()
    };
    (supervisor, shutdown)
}

fn script(folder: &Path, text: &str) -> Spec {
    Spec::of(&Home::new(folder), Service::Gateway).with_args(vec![text.to_owned()])
}

/// What a child wrote into a file of its home.
fn written(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

fn runs(pid: &str) -> bool {
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    test_kill_process(pid).is_ok()
}

#[tokio::test]
async fn a_child_that_is_never_ready_is_given_up_with_the_end_of_its_log_and_the_others_stop() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (mut supervisor, shutdown) = supervisor(PATIENCE);
    let well = "echo $$ > pid; echo ready; exec sleep 1000";
    supervisor.add(script(other.path(), well).labelled("well"));
    supervisor.all_ready().await.unwrap();
    let broken = "echo start >> starts
        echo 'error: no such model' >&2; exit 1";
    supervisor.add(script(folder.path(), broken).labelled("broken"));
    let board = supervisor.board();
    let error = timeout(PATIENCE, supervisor.run())
        .await
        .unwrap()
        .unwrap_err();
    let said = error.to_string();
    assert!(said.contains("broken ended 5 times"), "{said}");
    // What earlier lives said is not repeated.
    assert_eq!(said.matches("no such model").count(), 1, "{said}");
    let log = folder.path().join("logs/gateway.log");
    assert!(said.contains(&log.display().to_string()), "{said}");
    assert_eq!(written(folder.path(), "starts").lines().count(), 5);
    let board = board.borrow();
    assert_eq!(board["broken"].restarts, 4);
    assert_eq!(board["broken"].phase, Phase::Stopped);
    assert_eq!(board["well"].phase, Phase::Stopped);
    assert!(shutdown.is_cancelled());
    assert!(!runs(&written(other.path(), "pid")));
}

#[tokio::test]
async fn a_child_that_ends_is_started_again_until_it_is_ready_and_waits_while_it_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let (mut supervisor, shutdown) = supervisor(PATIENCE);
    // The third life is ready, and ends when it is told, without a word.
    let text = "echo start >> starts
        [ $(wc -l < starts) -ge 3 ] || { echo 'error: too early' >&2; exit 1; }
        echo ready
        while [ ! -e end ]; do sleep 0.01; done
        rm end";
    supervisor.add(script(folder.path(), text).labelled("late"));
    supervisor.all_ready().await.unwrap();
    let mut board = supervisor.board();
    assert_eq!(board.borrow()["late"].restarts, 2);

    supervisor.hold("late");
    fs::write(folder.path().join("end"), []).unwrap();
    let away = board.wait_for(|board| board["late"].phase == Phase::BackingOff);
    timeout(PATIENCE, away).await.unwrap().unwrap();
    // Others are seen to start meanwhile.
    let other = tempfile::tempdir().unwrap();
    supervisor.add(script(other.path(), "echo ready; exec sleep 1000").labelled("other"));
    let there = board.wait_for(|board| board["other"].phase == Phase::Ready);
    timeout(PATIENCE, there).await.unwrap().unwrap();
    assert_eq!(written(folder.path(), "starts").lines().count(), 3);
    assert_eq!(board.borrow()["late"].pid, None);
    let failure = board.borrow()["late"].failure.clone();
    assert_eq!(failure.as_deref(), Some("exit status: 0"));
    supervisor.release("late");
    timeout(PATIENCE, supervisor.all_ready())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(board.borrow()["late"].restarts, 3);
    assert_eq!(board.borrow()["late"].failure, None);
    shutdown.cancel();
    timeout(PATIENCE, supervisor.run()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_child_that_hears_the_request_to_end_may_finish() {
    let folder = tempfile::tempdir().unwrap();
    let (mut supervisor, shutdown) = supervisor(PATIENCE);
    let text = "trap 'echo finished > end; exit' TERM
        echo ready
        while :; do sleep 0.01; done";
    supervisor.add(script(folder.path(), text));
    supervisor.all_ready().await.unwrap();
    shutdown.cancel();
    timeout(PATIENCE, supervisor.run()).await.unwrap().unwrap();
    assert_eq!(written(folder.path(), "end"), "finished\n");
}

#[tokio::test]
async fn a_child_deaf_to_the_request_to_end_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let (mut supervisor, shutdown) = supervisor(Duration::from_millis(10));
    let text = "trap '' TERM
        sleep 1000 &
        echo $! > child
        echo $$ > pid
        echo ready
        wait";
    supervisor.add(script(folder.path(), text));
    supervisor.all_ready().await.unwrap();
    let (pid, child) = (
        written(folder.path(), "pid"),
        written(folder.path(), "child"),
    );
    assert!(runs(&pid) && runs(&child));
    shutdown.cancel();
    timeout(PATIENCE, supervisor.run()).await.unwrap().unwrap();
    assert!(!runs(&pid));
    // Whoever takes over its children has to take notice of the end.
    let began = Instant::now();
    while runs(&child) {
        assert!(began.elapsed() < PATIENCE, "{child} runs on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_child_that_is_of_no_use_on_this_machine_is_started_once_and_its_last_words_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (mut supervisor, _shutdown) = supervisor(PATIENCE);
    let unfit = format!(
        "echo start >> starts
        echo 'error: an error: it differs\n  because: x' >&2
        exit {UNFIT}"
    );
    supervisor.add(script(folder.path(), &unfit));
    let board = supervisor.board();
    let error = timeout(PATIENCE, supervisor.run())
        .await
        .unwrap()
        .unwrap_err();
    let words = "an error: it differs\n  because: x";
    assert!(error.to_string().ends_with(words), "{error}");
    assert_eq!(written(folder.path(), "starts").lines().count(), 1);
    let board = board.borrow();
    assert_eq!(board["gateway"].phase, Phase::Stopped);
    assert_eq!(board["gateway"].failure.as_deref(), Some(words));
}

#[tokio::test]
async fn a_child_whose_disk_is_full_is_started_again_as_often_as_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut supervisor, shutdown) = supervisor(PATIENCE);
    // More than what is said until then.
    supervisor.conduct.rotation = Rotation {
        bytes: 2000,
        kept: 1,
    };
    supervisor.conduct.look = Duration::from_millis(1);
    // There is room at the tenth start.
    let text = "echo start >> starts
        [ $(wc -l < starts) -ge 10 ] || {
            echo 'error: cannot write x' >&2
            echo '  because: No space left on device (os error 28)' >&2
            exit 1
        }
        head -c 3000 /dev/zero >&2
        echo ready
        exec sleep 1000";
    supervisor.add(script(folder.path(), text).labelled("full"));
    let mut board = supervisor.board();
    let told = board.wait_for(|board| board["full"].failure.is_some());
    let failure = timeout(PATIENCE, told).await.unwrap().unwrap()["full"]
        .failure
        .clone()
        .unwrap();
    let home = folder.path().display().to_string();
    for said in ["is full", "remove what", "os error 28", &home] {
        assert!(failure.contains(said), "{said}: {failure}");
    }
    timeout(PATIENCE, supervisor.all_ready())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(board.borrow()["full"].restarts, 9);
    assert_eq!(board.borrow()["full"].failure, None);
    // Its log is set aside while it runs.
    let logs = folder.path().join("logs");
    let began = Instant::now();
    while !fs::read(logs.join("gateway.log")).unwrap().is_empty() {
        assert!(began.elapsed() < PATIENCE, "the log stays");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(logs.join("gateway.log.1").is_file());
    shutdown.cancel();
    timeout(PATIENCE, supervisor.run()).await.unwrap().unwrap();
}
