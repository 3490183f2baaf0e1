//! Text preparation: what a text file becomes before it is tokenized.

/// Normalizes a plain text: CRLF becomes LF, the lines of a paragraph are
/// trimmed and joined by one space, paragraphs by one newline. Blank lines
/// separate paragraphs and are dropped.
///
/// ```
/// # use r3mes_training::text::normalize;
/// assert_eq!(normalize("One\r\n  day,\r\n\r\n\r\nlater.\r\n"), "One day,\nlater.");
/// ```
#[must_use]
pub fn normalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut separator = "";
    for line in text.replace("\r\n", "\n").split('\n') {
        let line = line.trim();
        if line.is_empty() {
            separator = if out.is_empty() { "" } else { "\n" };
        } else {
            out.push_str(separator);
            out.push_str(line);
            separator = " ";
        }
    }
    out
}
