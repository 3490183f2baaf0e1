//! What an answer is, alone and in company.

use r3mes_inference::exact::{self, Limits, Parts};
use r3mes_inference::{Answer, Engine, Event, FinishReason, Prompt, Request};
use r3mes_model::{ChatFormat, LoraConfig, Message};

use crate::setup::{BASE, adapter, greedy, ids, parts, request, running, start};

const PROMPTS: [&str; 8] = [
    "Once upon a time",
    "The big dog",
    "Lily and Ben went to the park. They saw a tall tree and a small bird, and",
    "One day, a little girl named Sue found a red box in the garden. She wanted to open it, but",
    "He",
    "\"Can I have some cake?\" asked Tom.",
    "The sun was hot and the cat",
    "Mom said,",
];

fn mixed() -> Vec<Request> {
    PROMPTS
        .iter()
        .zip(1..)
        .map(|(prompt, seed)| match seed % 2 {
            0 => greedy(prompt, 12 + seed as usize),
            _ => request(prompt, 12 + seed as usize, seed),
        })
        .collect()
}

#[test]
fn every_stream_gets_the_tokens_that_it_gets_alone() {
    let alone = running(Limits {
        slots: 1,
        ..Limits::default()
    });
    let expected: Vec<_> = mixed()
        .into_iter()
        .map(|request| alone.answer(request))
        .collect();
    for limits in [
        Limits {
            slots: 8,
            ..Limits::default()
        },
        Limits {
            slots: 3,
            prefill: 5,
            ..Limits::default()
        },
    ] {
        let together = running(limits);
        let streams: Vec<_> = mixed()
            .into_iter()
            .map(|request| together.engine.submit(request).unwrap())
            .collect();
        for (stream, expected) in streams.into_iter().zip(&expected) {
            let answer = stream.blocking_answer().unwrap();
            assert_eq!(answer.text, expected.text);
            assert_eq!(answer.completion, expected.completion);
        }
    }
}

#[test]
fn the_likeliest_answer_is_a_story_and_its_pieces_add_up() {
    let running = running(Limits::default());
    let mut stream = running
        .engine
        .submit(Request {
            logprobs: Some(3),
            ..greedy("Once upon a time, there was a little", 12)
        })
        .unwrap();
    assert_eq!(stream.prompt_tokens(), 10);
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let completion = loop {
        match stream.blocking_next().unwrap() {
            Event::Piece(piece) => {
                text += &piece.text;
                tokens.extend(piece.tokens);
            }
            Event::Finished(completion) => break completion,
            Event::Failed(error) => panic!("{error}"),
        }
    };
    assert!(stream.blocking_next().is_none());
    assert_eq!(text, " girl named Lily. She loved to play outside in the");
    assert_eq!(completion.finish, FinishReason::Length);
    assert_eq!(
        (completion.prompt_tokens, completion.completion_tokens),
        (10, 12)
    );
    assert_eq!(
        tokens
            .iter()
            .map(|token| token.text.as_str())
            .collect::<String>(),
        text
    );
    for token in &tokens {
        let logprob = token.logprob.unwrap();
        assert_eq!((token.top[0].id, token.top[0].logprob), (token.id, logprob));
        assert_eq!(token.top.len(), 3);
        assert!(token.top.is_sorted_by(|a, b| a.logprob >= b.logprob) && logprob <= 0.0);
        let kept: f32 = token.top.iter().map(|top| top.logprob.exp()).sum();
        assert!(kept <= 1.0 + 1e-5, "{kept}");
    }
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let running = running(Limits::default());
    let whole = running.answer(greedy("Once upon a time, there was a little", 40));
    for stop in ["She loved", "ily", "."] {
        let cut = whole.text.find(stop).unwrap();
        let request = Request {
            stop: vec!["never said".into(), stop.into()],
            logprobs: Some(0),
            ..greedy("Once upon a time, there was a little", 40)
        };
        let answer = running.answer(request);
        assert_eq!(answer.text, whole.text[..cut]);
        assert_eq!(answer.completion.finish, FinishReason::Stop);
        let told: String = answer
            .tokens
            .iter()
            .map(|token| token.text.as_str())
            .collect();
        assert!(
            told.starts_with(&answer.text),
            "{told:?} begins with {:?}",
            answer.text
        );
        // The receipt holds the tokens that the stop string cut as well.
        assert!(ids(&answer).len() >= answer.tokens.len());
        assert_eq!(ids(&answer), ids(&whole)[..ids(&answer).len()]);
    }
}

#[test]
fn a_request_keeps_its_adapter_while_another_takes_its_name() {
    let running = running(Limits::default());
    let serve = |seed, round| {
        running
            .engine
            .serve_adapter("tuned", LoraConfig::DEFAULT, &adapter(seed), Some(round))
            .unwrap();
    };
    let ask = || Request {
        model: "tuned".into(),
        ..request("The big dog", 24, 5)
    };
    serve(1, 1);
    let first = running.answer(ask());
    let streams: Vec<_> = (0..3)
        .map(|_| running.engine.submit(ask()).unwrap())
        .collect();
    serve(2, 2);
    let second = running.answer(ask());
    for stream in streams {
        assert_eq!(stream.blocking_answer().unwrap(), first);
    }
    assert_ne!(ids(&second), ids(&first));
    assert_ne!(
        ids(&running.answer(request("The big dog", 24, 5))),
        ids(&first)
    );
    let served = running.engine.models();
    let names: Vec<_> = served.iter().map(|m| (m.name.as_str(), m.round)).collect();
    assert_eq!(names, [(BASE, None), ("tuned", Some(2))]);
    assert_eq!(served[1].adapter, Some(adapter(2).hash()));
    running.engine.withdraw_adapter("tuned");
    assert!(running.engine.submit(ask()).is_err());
    let taken = running
        .engine
        .serve_adapter(BASE, LoraConfig::DEFAULT, &adapter(1), None);
    assert!(taken.unwrap_err().to_string().contains("under another"));
}

#[test]
fn a_conversation_goes_through_the_chat_template() {
    let running = running(Limits::default());
    let say = |content: &str| Message {
        role: "user".into(),
        content: content.into(),
    };
    let chat = Prompt::Chat(vec![say("Once upon a time,"), say("there was")]);
    let by_chat = running.answer(Request {
        prompt: chat,
        ..greedy("", 8)
    });
    let by_text = running.answer(greedy("Once upon a time,\nthere was", 8));
    assert_eq!(by_chat.text, by_text.text);
}

#[test]
fn a_conversation_goes_through_the_template_that_the_model_brings() {
    let format = ChatFormat {
        template: "{% for m in messages %}{{ bos_token }}{{ m.role }} said: {{ m.content }}\n\
            {% endfor %}"
            .into(),
        bos: "<s>".into(),
        eos: "</s>".into(),
    };
    let (engine, worker) = exact::engine(Parts {
        template: format.compile().unwrap(),
        ..parts(Limits::default())
    });
    let running = start(engine, worker);
    let message = Message {
        role: "user".into(),
        content: "there was a bear".into(),
    };
    let by_chat = running.answer(Request {
        prompt: Prompt::Chat(vec![message]),
        ..greedy("", 8)
    });
    // The token that the template begins with is the one that every text begins with.
    let by_text = running.answer(greedy("user said: there was a bear\n", 8));
    assert_eq!(by_chat.text, by_text.text);
    let receipt = |answer: &Answer| answer.completion.receipt.clone().unwrap().claim.prompt;
    assert_eq!(receipt(&by_chat), receipt(&by_text));
}
