//! YAML files that people write: read as a whole, with every complaint at once.

use std::{collections::BTreeSet, ops::Range};

use garde::Validate;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{Error, Location, Spanned};

/// Reads and checks a file's text.
///
/// A value that cannot be read, or a key that nothing knows, ends deserializing; its entry is then
/// left out, and the rest is read again. What is checked against an entry left out is checked against
/// its default.
///
/// # Errors
/// Every complaint in the order of the lines, each with line, column and the line itself; where the
/// text is no YAML, the first place that is none.
pub(crate) fn read<T>(text: &str) -> Result<T, String>
where
    T: DeserializeOwned + Validate<Context: Default>,
{
    let lines: Vec<&str> = text.lines().collect();
    let mut kept = lines.clone();
    let mut complaints = Complaints::new();
    loop {
        let rest = kept.join("\n");
        let error = match serde_saphyr::from_str_valid(&rest) {
            Ok(value) if complaints.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => error,
        };
        // No YAML from the start, or not any more.
        if let Err(error) = serde_saphyr::from_str::<IgnoredAny>(&rest) {
            if complaints.is_empty() {
                add(&mut complaints, &error, &lines);
            }
            break;
        }
        let error = error.without_snippet();
        if let Error::ValidationError {
            source,
            issues,
            locations,
        } = error
        {
            for issue in issues {
                let alone = Error::ValidationError {
                    source: *source,
                    issues: vec![issue.clone()],
                    locations: locations.clone(),
                };
                add(&mut complaints, &alone, &lines);
            }
            break;
        }
        let entry = entry_of(error, &lines);
        // A complaint about an entry of which a part was left out may come from that alone.
        if entry.clone().all(|line| kept[line] == lines[line]) {
            add(&mut complaints, error, &lines);
        }
        if kept[entry.clone()].iter().all(|line| line.is_empty()) {
            break;
        }
        kept[entry].fill("");
    }
    let told: Vec<String> = complaints.into_iter().map(|(_, _, told)| told).collect();
    Err(told.join("\n"))
}

/// The line, counted from 1, where the value of a key stands that is written `outer.inner.key`; `None`
/// where the text does not say it.
pub(crate) fn line_of(text: &str, key: &str) -> Option<usize> {
    let path: Vec<&str> = key.split('.').collect();
    let found =
        serde_saphyr::with_deserializer_from_str(text, |yaml| Seek(&path).deserialize(yaml));
    usize::try_from(found.ok()??.line()).ok()
}

/// Looks for a value in mappings within each other, by their keys.
struct Seek<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<Location>;

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<Self::Value, D::Error> {
        yaml.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<Location>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some((sought, within)) = self.0.split_first() else {
            return Ok(None);
        };
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match (key == *sought, within.is_empty()) {
                (false, _) => drop(map.next_value::<IgnoredAny>()?),
                (true, true) => found = Some(map.next_value::<Spanned<IgnoredAny>>()?.referenced),
                (true, false) => found = map.next_value_seed(Seek(within))?,
            }
        }
        Ok(found)
    }
}

/// What is wrong, as it is told, by line and column.
type Complaints = BTreeSet<(u64, u64, String)>;

/// Puts an error down.
fn add(complaints: &mut Complaints, error: &Error, lines: &[&str]) {
    let error = error.without_snippet();
    let message = error.to_string();
    let Some(at) = error.location() else {
        complaints.insert((0, 0, message));
        return;
    };
    let (line, column) = (at.line(), at.column());
    let said = message
        .strip_suffix(&format!(" at line {line}, column {column}"))
        .unwrap_or(&message);
    let said = in_words(error, said);
    let shown = lines.get(index(at)).unwrap_or(&"");
    let complaint = format!("line {line}, column {column}: {said}\n  {shown}");
    complaints.insert((line, column, complaint));
}

/// What is wrong, in words that name no type of this program.
fn in_words(error: &Error, said: &str) -> String {
    let expected = match error {
        Error::InvalidScalar { ty, .. } => match ty.as_bytes() {
            [b'u', digit, ..] if digit.is_ascii_digit() => "a whole number, 0 or more",
            [b'i', digit, ..] if digit.is_ascii_digit() => "a whole number",
            [b'f', digit, ..] if digit.is_ascii_digit() => "a number",
            b"bool" => "true or false",
            _ => return said.to_owned(),
        },
        Error::Message { .. } if said.contains("invalid socket address") => {
            "an IP address with a port, such as 127.0.0.1:8000 or 0.0.0.0:8000"
        }
        _ => {
            let said = said.strip_prefix("validation error at ").unwrap_or(said);
            // A value that may be absent ends its path with a point.
            return said.replacen(".: ", ": ", 1);
        }
    };
    format!("must be {expected}")
}

/// The lines of the entry that an error is about.
fn entry_of(error: &Error, lines: &[&str]) -> Range<usize> {
    let Some(at) = error.location().filter(|at| index(*at) < lines.len()) else {
        return 0..0;
    };
    let mut first = index(at);
    let is_key = matches!(error, Error::SerdeUnknownField { .. });
    if !is_key && usize::try_from(at.column()) == Ok(indent(lines[first]) + 1) {
        // A value that begins on a line of its own: its key is above.
        let deep = indent(lines[first]);
        let above = |&line: &usize| is_content(lines[line]) && indent(lines[line]) < deep;
        first = (0..first).rev().find(above).unwrap_or(first);
    }
    let deep = indent(lines[first]);
    let is_item = |line: &str| line.trim_start().starts_with("- ");
    let belongs = |line: &&str| {
        !is_content(line)
            || indent(line) > deep
            || indent(line) == deep && is_item(line) && !is_item(lines[first])
    };
    let more = lines[first + 1..].iter().take_while(|line| belongs(line));
    first..first + 1 + more.count()
}

fn index(at: Location) -> usize {
    usize::try_from(at.line()).map_or(usize::MAX, |line| line.saturating_sub(1))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Whether a line is neither blank nor a comment.
fn is_content(line: &str) -> bool {
    !matches!(line.trim_start().chars().next(), None | Some('#'))
}
#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize, Validate)]
    #[serde(deny_unknown_fields, default)]
    struct House {
        #[garde(dive)]
        door: Door,
        #[garde(dive)]
        doors: Vec<Door>,
        #[garde(length(max = 2))]
        numbers: Vec<u32>,
    }

    #[derive(Debug, PartialEq, Deserialize, Validate)]
    #[serde(deny_unknown_fields, default)]
    struct Door {
        #[garde(range(min = 1, max = 5))]
        width: u32,
        #[garde(length(max = 4))]
        name: String,
        #[garde(skip)]
        listen: SocketAddr,
    }

    impl Default for Door {
        fn default() -> Self {
            let listen = SocketAddr::from(([127, 0, 0, 1], 1));
            let (width, name) = (1, String::new());
            Self {
                width,
                name,
                listen,
            }
        }
    }

    /// The lines that are complained of.
    fn lines_of(text: &str) -> Vec<u64> {
        let problem = read::<House>(text).unwrap_err();
        let place = |line: &str| line.strip_prefix("line ")?.split(',').next()?.parse().ok();
        let found: Vec<u64> = problem.lines().filter_map(place).collect();
        assert!(!found.is_empty(), "{problem}");
        found
    }

    #[test]
    fn a_good_text_is_read_and_an_empty_one_is_the_default() {
        assert_eq!(read::<House>("").unwrap(), House::default());
        assert_eq!(read::<House>("# nothing\n").unwrap(), House::default());
        let house = read::<House>("numbers: [1, 2]\ndoor:\n  width: 3\n").unwrap();
        assert_eq!((house.door.width, house.numbers), (3, vec![1, 2]));
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let text = "\
door:
  width: wide     # 2: no number
  naem: front     # 3: no such key
  listen: here    # 4: no address
doors:
  - width: 2
    name: back
  - width: -1     # 8
    name: [a]     # within what was left out with 8
garden: 3         # 10: no such key
numbers: [1, 2, 3]
";
        // The list is too long as well.
        assert_eq!(lines_of(text), [2, 3, 4, 8, 10, 11]);
        let problem = read::<House>(text).unwrap_err();
        assert!(
            problem.contains("unknown field `naem`, expected one of"),
            "{problem}"
        );
        assert!(problem.contains("  listen: here"), "{problem}");
        for told in [
            "line 2, column 10: must be a whole number, 0 or more\n",
            "line 4, column 11: must be an IP address with a port, such as 127.0.0.1:8000",
        ] {
            assert!(problem.contains(told), "{problem}");
        }
    }

    #[test]
    fn each_of_several_values_out_of_range_is_told_once() {
        let text = "door:\n  width: 9\n  name: abcde\nnumbers: [1, 2, 3]\n";
        assert_eq!(lines_of(text), [2, 3, 4]);
        let problem = read::<House>(text).unwrap_err();
        assert_eq!(problem.matches("greater than 5").count(), 1, "{problem}");
        assert_eq!(problem.lines().count(), 6, "{problem}");
    }

    #[test]
    fn values_of_several_lines_are_left_out_whole() {
        assert_eq!(
            lines_of("door:\n  name:\n    a: b\n    c: d\n  width: 9\n"),
            [3, 5]
        );
        assert_eq!(lines_of("numbers:\n- 1\n- x\n- y\ndoor: 3\n"), [3, 4, 5]);
        assert_eq!(lines_of("numbers:\n  k: v\ndoors: {}\n"), [2, 3]);
        assert_eq!(
            lines_of("door: {width: x,\n  name: abcde}\nnumbers: y\n"),
            [1, 3]
        );
    }

    #[test]
    fn a_list_that_lost_all_its_items_is_complained_of_for_them_alone() {
        assert_eq!(
            lines_of("numbers:\n  - x\n  - y\ndoor:\n  width: 7\n"),
            [2, 3, 5]
        );
    }

    #[test]
    fn a_value_is_found_by_the_names_of_its_keys() {
        let text =
            "# a house\ndoor:\n  width: 3\n\n  inner: {name: b, listen:\n    here}\ndoors: []\n";
        for (key, line) in [
            ("door.width", Some(3)),
            ("door.inner.name", Some(5)),
            ("door.inner.listen", Some(6)),
            ("doors", Some(7)),
            ("door.depth", None),
            ("doors.0.width", None),
            ("garden.door", None),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
        assert_eq!(line_of("", "door"), None);
    }

    #[test]
    fn a_text_that_is_no_yaml_is_complained_of_where_it_stops_being_it() {
        assert_eq!(lines_of("numbers: [1, 2\ndoor:\n  width: 9\n").len(), 1);
        assert_eq!(lines_of("door:\n\twidth: 9\n"), [2]);
        assert_eq!(lines_of("door:\n  width: 1\n  width: 2\n"), [3]);
    }
}
