//! Colours by meaning. A command says what a word means; whether that shows is decided once, in [`super::Screen`].

use anstyle::{AnsiColor, Style};

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Plain text.
    Plain,
    /// ANSI colours.
    Colour,
}

/// What a word means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// As it should be; allowed.
    Good,
    /// A person should look; audit.
    Odd,
    /// Broken; denied.
    Bad,
    /// Less important than its neighbours.
    Faint,
    /// What the eye should find first.
    Strong,
}

impl Paint {
    /// The text in its tone.
    pub(crate) fn tone(self, tone: Tone, text: &str) -> String {
        let style = match (self, tone) {
            (Self::Plain, _) | (_, Tone::Plain) => return text.to_owned(),
            (Self::Colour, Tone::Good) => AnsiColor::Green.on_default(),
            (Self::Colour, Tone::Odd) => AnsiColor::Yellow.on_default(),
            (Self::Colour, Tone::Bad) => AnsiColor::Red.on_default().bold(),
            (Self::Colour, Tone::Faint) => Style::new().dimmed(),
            (Self::Colour, Tone::Strong) => Style::new().bold(),
        };
        format!("{style}{text}{style:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_has_no_escape_codes() {
        assert_eq!(Paint::Plain.tone(Tone::Bad, "DENIED"), "DENIED");
    }

    #[test]
    fn colour_ends_where_the_word_ends() {
        assert_eq!(Paint::Colour.tone(Tone::Good, "ok"), "\u{1b}[32mok\u{1b}[0m");
    }
}
