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

/// Chooses the form of the answer. Of a path's end, `whole` being false, there is only a CAR.
///
/// # Errors
/// 400 for a parameter that is wrong or a request that names no form at all, 406 when nothing
/// that `Accept` lists is served here.
pub(super) fn negotiate(
    parameters: &Parameters,
    headers: &HeaderMap,
    whole: bool,
) -> Result<Negotiated, Refusal> {
    let accepted = Accepted::parse(parameters, headers, whole);
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
    /// The client's preference in thousandths; zero for what it does not want.
    quality: u16,
    /// Said which version, order or duplicates it wants.
    particular: bool,
    /// By its own media type, not by a range of types.
    exact: bool,
}

impl Accepted {
    fn parse(parameters: &Parameters, headers: &HeaderMap, whole: bool) -> Self {
        let mut accepted = Self {
            absent: !headers.contains_key(header::ACCEPT),
            ..Self::default()
        };
        // What application/* and */* say; the narrower range counts.
        let mut wide = [None, None];
        let values = headers.get_all(header::ACCEPT).iter();
        let ranges = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .take(MAX_RANGES);
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            match kind.to_ascii_lowercase().as_str() {
                RAW_TYPE => accepted.add(Form::Raw, parts, parameters),
                CAR_TYPE => accepted.add(Form::Car { duplicates: false }, parts, parameters),
                "application/*" => wide[0] = Some(quality_of(parts)),
                "*/*" => wide[1] = Some(quality_of(parts)),
                _ => {}
            }
        }
        if let Some(quality) = wide[0].or(wide[1]) {
            accepted.add_rest(quality, whole);
        }
        accepted.forms.retain(|listed| listed.quality > 0);
        // A stable sort: of equals, the one listed first.
        let rank = |listed: &Listed| (std::cmp::Reverse(listed.quality), !listed.exact);
        accepted.forms.sort_by_key(rank);
        accepted
    }

    /// Adds a form by its media type. What the URL says of a CAR counts, not what this says.
    fn add<'a>(
        &mut self,
        form: Form,
        type_parameters: impl Iterator<Item = &'a str>,
        parameters: &Parameters,
    ) {
        let mut listed = Listed {
            form,
            quality: 1000,
            particular: false,
            exact: true,
        };
        let mut served = true;
        for part in type_parameters {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches('"');
            let name = name.trim().to_ascii_lowercase();
            match (name.as_str(), &mut listed.form) {
                ("q", _) => listed.quality = quality(value),
                ("version", Form::Car { .. }) => {
                    served &= value == "1" || parameters.car_version.is_some();
                }
                ("order", Form::Car { .. }) => {
                    let any = value.is_empty() || parameters.car_order.is_some();
                    served &= any || is_order(value);
                }
                ("dups", Form::Car { duplicates }) => match value {
                    "y" => *duplicates = true,
                    "n" | "" => *duplicates = false,
                    _ => served &= parameters.car_dups.is_some(),
                },
                _ => continue,
            }
            listed.particular |= name != "q";
        }
        match (served, listed.quality) {
            (true, _) => self.forms.push(listed),
            (false, 0) => {}
            (false, _) => self.other_cars = true,
        }
    }

    /// Adds the forms that have not been listed by their own type: first the block, if one can be
    /// had, then the CAR.
    fn add_rest(&mut self, quality: u16, whole: bool) {
        let raw = whole.then_some(Form::Raw);
        let car = Some(Form::Car { duplicates: false });
        for form in [raw, car].into_iter().flatten() {
            let same = |listed: &Listed| listed.form.name() == form.name();
            if !self.forms.iter().any(same) {
                self.forms.push(Listed {
                    form,
                    quality,
                    particular: false,
                    exact: false,
                });
            }
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
        let other = |listed: &Listed| {
            listed.exact && (listed.form.name() != form.name() || listed.particular)
        };
        parameters.format.is_none() || self.forms.first().is_some_and(other)
    }
}

/// The preference that a media range's parameters name, if any does.
fn quality_of<'a>(mut type_parameters: impl Iterator<Item = &'a str>) -> u16 {
    let named = type_parameters.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    named.map_or(1000, quality)
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
