//! What is refused, and what is cut short.

use r3mes_inference::exact::Limits;
use r3mes_inference::{
    Engine, FinishReason, GenerationError, Prompt, Request, RequestError, Sampling,
};

use crate::setup::{greedy, idle, request, running, start};

#[test]
fn requests_that_do_not_fit_are_refused_with_the_reason() {
    let (engine, _worker) = idle(Limits {
        cache_bytes: 1 << 20,
        ..Limits::default()
    });
    let good = || request("Once", 5, 1);
    let sampling = |change: &dyn Fn(&mut Sampling)| {
        let mut request = good();
        change(&mut request.sampling);
        request
    };
    for (request, said) in [
        (
            Request {
                model: "other".into(),
                ..good()
            },
            "served are: stories",
        ),
        (
            Request {
                prompt: Prompt::Tokens(vec![]),
                ..good()
            },
            "empty",
        ),
        (
            Request {
                prompt: Prompt::Tokens(vec![1, 32_000]),
                ..good()
            },
            "token 32000",
        ),
        (
            Request {
                prompt: Prompt::Tokens(vec![5; 256]),
                ..good()
            },
            "256 tokens",
        ),
        (
            // Tokenizing it would take minutes.
            Request {
                prompt: Prompt::Text("a ".repeat(8 << 20)),
                ..good()
            },
            "16777216 bytes",
        ),
        (
            Request {
                prompt: Prompt::Chat(vec![]),
                ..good()
            },
            "messages",
        ),
        (
            Request {
                max_tokens: Some(0),
                ..good()
            },
            "max_tokens",
        ),
        (
            Request {
                max_tokens: None,
                ..good()
            },
            "memory for keys",
        ),
        (
            Request {
                stop: vec![String::new()],
                ..good()
            },
            "stop",
        ),
        (
            Request {
                stop: vec!["x".into(); 17],
                ..good()
            },
            "at most 16",
        ),
        (
            Request {
                logprobs: Some(21),
                ..good()
            },
            "logprobs",
        ),
        (sampling(&|s| s.temperature = f32::NAN), "temperature"),
        (sampling(&|s| s.temperature = 2.5), "temperature"),
        (sampling(&|s| s.top_p = 1.5), "top_p"),
        (
            sampling(&|s| s.frequency_penalty = -3.0),
            "frequency_penalty",
        ),
        (
            sampling(&|s| s.repetition_penalty = 0.0),
            "repetition_penalty",
        ),
    ] {
        let refused = engine.submit(request).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused:?} does not say {said:?}");
    }
}

#[test]
fn a_full_queue_is_busy_and_a_stopped_engine_says_so() {
    let (engine, worker) = idle(Limits {
        queue: 2,
        ..Limits::default()
    });
    let first = engine.submit(greedy("Once", 3)).unwrap();
    let second = engine.submit(greedy("Once", 3)).unwrap();
    let busy = engine.submit(greedy("Once", 3)).unwrap_err();
    assert_eq!(busy, RequestError::Busy { waiting: 2 });
    assert_eq!(engine.load().waiting, 2);
    engine.stop();
    worker.run();
    for stream in [first, second] {
        assert_eq!(
            stream.blocking_answer().unwrap_err(),
            GenerationError::Stopped
        );
    }
    assert_eq!(
        engine.submit(greedy("Once", 3)).unwrap_err(),
        RequestError::Stopped
    );
}

#[test]
fn the_context_ends_an_answer_that_has_no_other_limit() {
    let running = running(Limits::default());
    let request = Request {
        prompt: Prompt::Tokens((0..250).map(|i| 300 + i % 40).collect()),
        max_tokens: None,
        ignore_eos: true,
        ..greedy("", 1)
    };
    let answer = running.answer(request);
    assert_eq!(answer.completion.finish, FinishReason::Length);
    assert_eq!(answer.completion.completion_tokens, 6);
}

#[test]
fn an_answer_that_nobody_waits_for_makes_room_for_the_next() {
    let (engine, worker) = idle(Limits {
        slots: 1,
        ..Limits::default()
    });
    let abandoned = engine.submit(request("Once upon a time", 240, 1)).unwrap();
    let mut noticed = engine.submit(request("Once upon a time", 240, 2)).unwrap();
    drop(abandoned);
    let running = start(engine, worker);
    noticed.blocking_next().unwrap();
    drop(noticed);
    let answer = running.answer(greedy("The dog", 2));
    assert_eq!(answer.completion.completion_tokens, 2);
    let load = running.engine.load();
    assert_eq!(load.waiting, 0);
    assert!(load.generated_tokens < 240, "{load:?}");
}

#[test]
fn requests_wait_for_memory_and_all_are_answered() {
    let per_position = crate::setup::model().cache_bytes_per_position();
    let running = running(Limits {
        cache_bytes: 60 * per_position,
        ..Limits::default()
    });
    let streams: Vec<_> = (0..5)
        .map(|seed| running.engine.submit(request("The dog", 20, seed)).unwrap())
        .collect();
    for stream in streams {
        assert!(
            stream
                .blocking_answer()
                .unwrap()
                .completion
                .completion_tokens
                > 0
        );
    }
}
