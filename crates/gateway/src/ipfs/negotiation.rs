//! In which form a client wants the answer: what `format` and the `car-` parameters say comes
//! before what `Accept` says.

use axum::http::{HeaderMap, StatusCode, header};

use super::request::{Parameters, Refusal};

/// The media type of a single block.
pub(super) const RAW_TYPE: &str = "application/vnd.ipld.raw";
/// The media type of a CAR.
pub(super) const CAR_TYPE: &str = "application/vnd.ipld.car";

/// Most media ranges of an `Accept` header that are looked at.
const MAX_RANGES: usize = 32;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One block.
    Raw,
    /// A CAR, version 1, depth first.
    Car {
        /// Whether a block is sent as often as it occurs.
        duplicates: bool,
    },
}

impl Form {
    /// The value of `format` that asks for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Car { .. } => "car",
        }
    }

    /// The answer's `Content-Type`.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Raw => RAW_TYPE,
            Self::Car { duplicates: false } => {
                "application/vnd.ipld.car; version=1; order=dfs; dups=n"
            }
            Self::Car { duplicates: true } => {
                "application/vnd.ipld.car; version=1; order=dfs; dups=y"
            }
        }
    }
}

/// A form, and whether the URL alone says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) form: Form,
    /// The header had a part in the choice, or another wish, so that a cache needs the address
    /// that says the form by itself.
    pub(super) needs_location: bool,
}

/// Chooses the form of the answer.
///
/// # Errors
/// 400 for a parameter that is wrong or a request that names no form at all, 406 when nothing
/// that `Accept` lists is served here.
pub(super) fn negotiate(
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Result<Negotiated, Refusal> {
    let accepted = Accepted::parse(headers);
    let form = match parameters.format.as_deref() {
        Some("raw") => Form::Raw,
        Some("car") => accepted.car()?.unwrap_or(Form::Car { duplicates: false }),
        Some("ipns-record") => {
            return Err(bad(
                "there are no IPNS records under /ipfs: ask below /ipns",
            ));
        }
        Some(other) => {
            return Err(bad(&format!(
                "format={other:?} is not served here: use raw or car"
            )));
        }
        None => accepted.best()?,
    };
    let form = match form {
        Form::Raw => Form::Raw,
        Form::Car { duplicates } => Form::Car {
            duplicates: car_parameters(parameters, duplicates)?,
        },
    };
    Ok(Negotiated {
        form,
        needs_location: accepted.wishes_beyond(parameters, form),
    })
}

/// Whether duplicates are sent, once the URL's `car-` parameters are known to be served.
fn car_parameters(parameters: &Parameters, accepted: bool) -> Result<bool, Refusal> {
    if let Some(version) = parameters.car_version.as_deref().filter(|v| *v != "1") {
        return Err(bad(&format!(
            "car-version={version:?} is not served here: use 1"
        )));
    }
    if let Some(order) = parameters.car_order.as_deref().filter(|o| !is_order(o)) {
        return Err(bad(&format!(
            "car-order={order:?} is not served here: use dfs or unk"
        )));
    }
    match parameters.car_dups.as_deref() {
        None => Ok(accepted),
        Some("y") => Ok(true),
        Some("n") => Ok(false),
        Some(other) => Err(bad(&format!("car-dups={other:?} is neither y nor n"))),
    }
}

/// What `Accept` lists and is known here, best first.
#[derive(Debug, Default)]
struct Accepted {
    /// No such header.
    absent: bool,
    forms: Vec<Listed>,
    /// A CAR of a variant that is not served is listed.
    other_cars: bool,
}

#[derive(Clone, Copy, Debug)]
struct Listed {
    form: Form,
    /// The client's preference in thousandths.
    quality: u16,
    /// Said which version, order or duplicates it wants.
    particular: bool,
}

impl Accepted {
    fn parse(headers: &HeaderMap) -> Self {
        let mut accepted = Self {
            absent: !headers.contains_key(header::ACCEPT),
            ..Self::default()
        };
        let values = headers.get_all(header::ACCEPT).iter();
        let ranges = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .take(MAX_RANGES);
        for range in ranges {
            accepted.add(range);
        }
        // A stable sort: of equals, the one listed first.
        let quality = |listed: &Listed| std::cmp::Reverse(listed.quality);
        accepted.forms.sort_by_key(quality);
        accepted
    }

    fn add(&mut self, range: &str) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let mut listed = Listed {
            form: match kind.to_ascii_lowercase().as_str() {
                RAW_TYPE => Form::Raw,
                CAR_TYPE => Form::Car { duplicates: false },
                _ => return,
            },
            quality: 1000,
            particular: false,
        };
        let mut served = true;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches('"');
            let name = name.trim().to_ascii_lowercase();
            match (name.as_str(), &mut listed.form) {
                ("q", _) => listed.quality = quality(value),
                ("version", Form::Car { .. }) => served &= value == "1",
                ("order", Form::Car { .. }) => served &= is_order(value) || value.is_empty(),
                ("dups", Form::Car { duplicates }) => match value {
                    "y" => *duplicates = true,
                    "n" | "" => *duplicates = false,
                    _ => served = false,
                },
                _ => continue,
            }
            listed.particular |= name != "q";
        }
        match (served, listed.quality) {
            (_, 0) => {}
            (true, _) => self.forms.push(listed),
            (false, _) => self.other_cars = true,
        }
    }

    /// The best form of all that are listed.
    fn best(&self) -> Result<Form, Refusal> {
        if let Some(listed) = self.forms.first() {
            return Ok(listed.form);
        }
        if self.other_cars {
            return Err(no_such_car());
        }
        let text = format!(
            "this is a trustless gateway: ask for ?format=raw or ?format=car, or for {RAW_TYPE} \
             or {CAR_TYPE} in Accept"
        );
        match self.absent {
            true => Err((StatusCode::BAD_REQUEST, text)),
            false => Err((StatusCode::NOT_ACCEPTABLE, text)),
        }
    }

    /// The best CAR listed, if any.
    fn car(&self) -> Result<Option<Form>, Refusal> {
        let mut forms = self.forms.iter().map(|listed| listed.form);
        match forms.find(|form| matches!(form, Form::Car { .. })) {
            None if self.other_cars => Err(no_such_car()),
            found => Ok(found),
        }
    }

    /// Whether the URL leaves something open that this header says, or says otherwise.
    fn wishes_beyond(&self, parameters: &Parameters, form: Form) -> bool {
        let other = |listed: &Listed| listed.form.name() != form.name() || listed.particular;
        parameters.format.is_none() || self.forms.first().is_some_and(other)
    }
}

/// A preference in thousandths; what cannot be read is none, as for an absent one.
fn quality(text: &str) -> u16 {
    let quality = text.parse::<f32>().ok();
    let quality = quality.filter(|quality| (0.0..=1.0).contains(quality));
    quality.map_or(1000, |quality| (quality * 1000.0) as u16)
}

/// Depth first is also an answer to who does not mind.
fn is_order(order: &str) -> bool {
    matches!(order, "dfs" | "unk")
}

fn bad(text: &str) -> Refusal {
    (StatusCode::BAD_REQUEST, text.to_owned())
}

fn no_such_car() -> Refusal {
    let text = format!("CARs are served as {CAR_TYPE} with version=1, order=dfs, dups=y or n");
    (StatusCode::NOT_ACCEPTABLE, text)
}
