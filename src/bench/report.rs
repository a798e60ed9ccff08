//! The report: one HTML file with its data, plots and style inside, that opens without a network.

use super::summary::Summary;

/// What the data replaces in the page.
const MARK: &str = "/*DATA*/null";
const PAGE: &str = include_str!("report.html");

/// The whole file.
pub fn html(summary: &Summary) -> String {
    PAGE.replacen(MARK, &embedded(&summary.plots().to_string()), 1)
}

/// JSON that can't end the script in which it stands: a server's words are in it.
fn embedded(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_place_for_the_data_and_needs_nothing_else() {
        assert_eq!(PAGE.matches(MARK).count(), 1);
        for reference in ["src=", "href=", "@import", "url("] {
            assert!(!PAGE.contains(reference), "{reference}");
        }
    }

    #[test]
    fn data_stays_data() {
        let json = serde_json::json!({ "why": "</script><script>alert(1)\u{2028}" }).to_string();
        let embedded = embedded(&json);
        assert!(!embedded.contains('<') && !embedded.contains('\u{2028}'));
        let back: serde_json::Value = serde_json::from_str(&embedded).unwrap();
        assert_eq!(back["why"], "</script><script>alert(1)\u{2028}");
    }
}
