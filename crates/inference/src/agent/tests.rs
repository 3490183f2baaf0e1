use proptest::collection::vec;
use proptest::prelude::*;
use r3mes_types::models::ModelSpec;
use r3mes_types::wire::Text;
use r3mes_types::{Amount, Cid, Hash, Time};

use super::*;

fn model(name: &str, registered_at: u64) -> Model {
    Model {
        spec: ModelSpec {
            id: Hash::of(name.as_bytes()),
            name: Text::new(name).unwrap(),
            base: Cid::raw(name.as_bytes()),
            base_bytes: 1,
            tokenizer: Cid::raw(b"tokenizer"),
            tokenizer_hash: Hash::of(b"tokenizer"),
            exact_version: 1,
            memory_mib: 1,
            price_per_million_tokens: Amount::ZERO,
            licence: Text::new("MIT").unwrap(),
        },
        registered_at: Time::from_nanos(registered_at),
        versions: 0,
    }
}

fn version(number: u32) -> Version {
    Version {
        model: Hash::of(b"base"),
        number,
        run: 1,
        round: number.into(),
        adapter: Cid::raw(&number.to_le_bytes()),
        adapter_hash: Hash::of(&number.to_le_bytes()),
        registered_at: Time::from_nanos(number.into()),
    }
}

/// What the ledger says of the served model, whose newest version has this number; 0: none yet.
fn seen(newest: u32) -> ModelAnswer {
    ModelAnswer {
        model: Some(model("base", 1)),
        newest: (newest > 0).then(|| version(newest)),
    }
}

#[test]
fn the_named_model_is_served_or_else_the_first_that_was_registered() {
    let models = [model("late", 9), model("first", 3), model("second", 4)];
    let name = |wanted| choose(&models, wanted).map(|chosen| chosen.spec.name.to_string());
    assert_eq!(name(None).unwrap(), "first");
    assert_eq!(name(Some("late")).unwrap(), "late");
    let unknown = NothingToServe::Unknown {
        name: "lat".to_owned(),
    };
    assert_eq!(name(Some("lat")), Err(unknown));
    assert_eq!(choose(&[], None), Err(NothingToServe::NoModel));
}

#[test]
fn of_two_models_of_one_block_every_node_serves_the_same() {
    let mut models = [model("one", 5), model("other", 5)];
    let chosen = choose(&models, None).unwrap().clone();
    models.reverse();
    assert_eq!(choose(&models, None), Ok(&chosen));
}

#[test]
fn a_model_without_versions_is_announced_and_then_left_alone() {
    let mut facts = Facts::default();
    assert_eq!(plan(&facts, &seen(0)), Some(Action::Announce));
    facts.announced = true;
    assert_eq!(plan(&facts, &seen(0)), None);
}

#[test]
fn an_adapter_is_fetched_then_served_then_announced() {
    let mut facts = Facts::default();
    let newest = Box::new(version(3));
    assert_eq!(plan(&facts, &seen(3)), Some(Action::Fetch(newest.clone())));
    facts.fetched = Some(Fetched {
        number: 3,
        fits: true,
    });
    assert_eq!(plan(&facts, &seen(3)), Some(Action::Serve(newest)));
    facts.served = Some(3);
    assert_eq!(plan(&facts, &seen(3)), Some(Action::Announce));
}

#[test]
fn a_version_that_came_while_another_was_fetched_is_fetched_in_its_place() {
    let facts = Facts {
        fetched: Some(Fetched {
            number: 3,
            fits: true,
        }),
        ..Facts::default()
    };
    let newest = Box::new(version(4));
    assert_eq!(plan(&facts, &seen(4)), Some(Action::Fetch(newest)));
}

#[test]
fn what_does_not_fit_is_given_up_once_and_the_rest_is_served_on() {
    let mut facts = Facts {
        fetched: Some(Fetched {
            number: 3,
            fits: false,
        }),
        served: Some(2),
        given_up: None,
        announced: true,
    };
    let unfit = Box::new(version(3));
    assert_eq!(plan(&facts, &seen(3)), Some(Action::GiveUp(unfit)));
    facts.given_up = Some(3);
    assert_eq!(plan(&facts, &seen(3)), None);
    let next = Box::new(version(4));
    assert_eq!(plan(&facts, &seen(4)), Some(Action::Fetch(next)));
}

#[test]
fn a_ledger_that_does_not_know_the_model_says_nothing_about_it() {
    let mut unknown = seen(3);
    unknown.model = None;
    assert_eq!(plan(&Facts::default(), &unknown), None);
}

/// What happens around a serving node.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A round closes, and its adapter can be served or not.
    Round { fits: bool },
    /// The ledger is asked, at a node that is some versions behind, and the next action is done if it
    /// succeeds.
    Turn { behind: u32, succeeds: bool },
    /// The process is killed.
    Killed,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => prop::bool::weighted(0.7).prop_map(|fits| Event::Round { fits }),
        6 => (0_u32..3, any::<bool>())
            .prop_map(|(behind, succeeds)| Event::Turn { behind, succeeds }),
        1 => Just(Event::Killed),
    ]
}

/// A ledger's versions, by whether they fit, and one process that follows it.
#[derive(Default)]
struct World {
    fits: Vec<bool>,
    facts: Facts,
}

impl World {
    fn fits(&self, version: &Version) -> bool {
        self.fits[version.number as usize - 1]
    }

    /// Asks, plans and acts once; whether there was something to do.
    fn turn(&mut self, behind: u32, succeeds: bool) -> bool {
        let newest = (self.fits.len() as u32).saturating_sub(behind);
        let Some(action) = plan(&self.facts, &seen(newest)) else {
            return false;
        };
        let fetched = self.facts.fetched;
        let before = self.facts.served.max(self.facts.given_up);
        match &action {
            Action::Fetch(version) | Action::Serve(version) | Action::GiveUp(version) => {
                assert!(Some(version.number) > before, "{action:?} goes back");
            }
            Action::Announce => assert!(!self.facts.announced),
        }
        if !succeeds {
            return true;
        }
        match action {
            Action::Fetch(version) => {
                self.facts.fetched = Some(Fetched {
                    number: version.number,
                    fits: self.fits(&version),
                });
            }
            Action::Serve(version) => {
                let ready = fetched.expect("nothing is served that was not fetched");
                assert_eq!((ready.number, ready.fits), (version.number, true));
                self.facts.served = Some(version.number);
            }
            Action::GiveUp(version) => {
                assert!(!self.fits(&version));
                self.facts.given_up = Some(version.number);
            }
            Action::Announce => self.facts.announced = true,
        }
        true
    }
}

proptest! {
    /// Whatever happened before, a node that can fetch and whose ledger is up to date answers with the
    /// newest version that it can serve after at most three actions, and then rests.
    #[test]
    fn a_serving_node_never_goes_back_and_ends_with_the_newest_version(
        events in vec(event(), 0..60)
    ) {
        let mut world = World::default();
        for event in events {
            match event {
                Event::Round { fits } => world.fits.push(fits),
                Event::Turn { behind, succeeds } => {
                    world.turn(behind, succeeds);
                }
                Event::Killed => world.facts = Facts::default(),
            }
        }
        let actions = (0..10).take_while(|_| world.turn(0, true)).count();
        prop_assert!(actions <= 3, "{actions} actions");
        let facts = world.facts;
        prop_assert!(facts.announced);
        let newest = world.fits.len() as u32;
        match world.fits.last() {
            None => prop_assert_eq!((facts.served, facts.given_up), (None, None)),
            Some(true) => prop_assert_eq!(facts.served, Some(newest)),
            Some(false) => {
                prop_assert_eq!(facts.given_up, Some(newest));
                prop_assert!(facts.served < Some(newest));
            }
        }
    }
}
