//! A person at a real browser: they see a page, type, click, and run no scripts of it. What a page must not do is watched all the
//! while, and axe-core looks at it for those who hear or magnify it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chromium::Chromium;
use crate::python;

/// axe-core 4.12.1, as this package of PyPI carries it.
const AXE: (&str, &str, &str) = ("axe-playwright-python", "0.1.8", "axe_playwright_python/axe.min.js");
/// Where pictures go, if anywhere.
const PICTURES: &str = "CONNECT_PICTURES";

/// Devices: name, width, height, pixels of a point, whether it is held in a hand.
const DEVICES: [(&str, u32, u32, f64, bool); 2] =
    [("phone", 360, 740, 2.0, true), ("desk", 1280, 860, 1.0, false)];

/// See the module.
pub struct Browser {
    chromium: Chromium,
    axe: String,
    pictures: Option<PathBuf>,
    /// How many looks axe-core had.
    pub looks: usize,
}

impl Browser {
    /// Starts one. Scripts of pages do not run.
    ///
    /// # Panics
    /// When Chromium or axe-core is missing.
    #[must_use]
    pub fn start() -> Self {
        let (package, version, file) = AXE;
        let axe = std::fs::read_to_string(python::files(package, version).join(file)).unwrap();
        let mut chromium = Chromium::start();
        for domain in ["Network.enable", "Audits.enable"] {
            chromium.call(domain, &json!({}));
        }
        let pictures = std::env::var_os(PICTURES).map(PathBuf::from);
        if let Some(folder) = &pictures {
            std::fs::create_dir_all(folder).unwrap();
        }
        let mut browser = Self { chromium, axe, pictures, looks: 0 };
        browser.scripts(false);
        browser
    }

    fn scripts(&mut self, run: bool) {
        self.chromium.call("Emulation.setScriptExecutionDisabled", &json!({ "value": !run }));
    }

    /// The language that the browser asks for.
    pub fn speaks(&mut self, language: &str) {
        let fields = json!({ "headers": { "Accept-Language": language } });
        self.chromium.call("Network.setExtraHTTPHeaders", &fields);
    }

    /// Does something that leads to another page, and waits until that is there.
    fn leading(&mut self, what: &str, act: impl FnOnce(&mut Chromium)) {
        let before = self.chromium.loads;
        act(&mut self.chromium);
        self.chromium.hear_until(what, |chromium| chromium.loads > before);
    }

    /// Opens an address.
    pub fn open(&mut self, url: &str) {
        self.leading(url, |chromium| {
            let gone = chromium.call("Page.navigate", &json!({ "url": url }));
            assert!(gone["errorText"].is_null(), "{url}: {gone}");
        });
    }

    /// Where the person is.
    pub fn address(&mut self) -> String {
        self.ask("location.href").as_str().unwrap().to_owned()
    }

    /// What the browser knows of the page; its own scripts have no part in that.
    pub fn ask(&mut self, expression: &str) -> Value {
        self.chromium.evaluate(expression)
    }

    /// Waits until the field with this id has the focus.
    ///
    /// # Panics
    /// When another one has it, or none, after ten seconds.
    pub fn focused(&mut self, id: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let now = self.ask("document.activeElement ? document.activeElement.id : ''");
            if now == id {
                return;
            }
            assert!(Instant::now() < until, "{now} has the focus, and not {id}: {}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that can be read on the page.
    pub fn text(&mut self) -> String {
        self.ask("document.body.innerText").as_str().unwrap().to_owned()
    }

    /// The field with this name gets this text, by the keyboard.
    ///
    /// # Panics
    /// When the page has no such field.
    pub fn fill(&mut self, name: &str, text: &str) {
        let selector = json!(format!("input[name=\"{name}\"]"));
        let found = self.ask(&format!(
            "(() => {{ const f = document.querySelector({selector}); if (!f) return false; f.focus(); f.select(); return true; }})()"
        ));
        assert_eq!(found, true, "no field {name}: {}", self.text());
        self.chromium.call("Input.insertText", &json!({ "text": text }));
    }

    /// Clicks at what this selector finds first, and waits for the page after it.
    ///
    /// # Panics
    /// When it finds nothing.
    pub fn click(&mut self, selector: &str) {
        let place = self.ask(&format!(
            "(() => {{ const e = document.querySelector({}); if (!e) return null; e.scrollIntoView({{block: 'center'}});
               const r = e.getBoundingClientRect(); return {{x: r.x + r.width / 2, y: r.y + r.height / 2}}; }})()",
            json!(selector)
        ));
        assert!(place.is_object(), "nothing is {selector}: {}", self.text());
        self.leading(selector, |chromium| {
            for kind in ["mousePressed", "mouseReleased"] {
                let event = json!({ "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1 });
                chromium.call("Input.dispatchMouseEvent", &event);
            }
        });
    }

    /// Presses the button of a step.
    pub fn press(&mut self, step: &str) {
        self.click(&format!("button[name=\"do\"][value=\"{step}\"]"));
    }

    /// Hits the return key in the field that has the focus.
    pub fn enter(&mut self) {
        self.leading("the return key", |chromium| {
            for kind in ["keyDown", "keyUp"] {
                let key = json!({ "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r" });
                chromium.call("Input.dispatchKeyEvent", &key);
            }
        });
    }

    /// Looks at the page on each device in light and in dark: everything fits, and axe-core finds no fault. A picture of each is kept
    /// where `CONNECT_PICTURES` says.
    ///
    /// # Panics
    /// With what is wrong.
    pub fn look(&mut self, name: &str) {
        self.scripts(true);
        let source = self.axe.clone();
        self.chromium.evaluate(&format!("{source}; typeof axe.run"));
        for (device, width, height, scale, mobile) in DEVICES {
            let size =
                json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile });
            self.chromium.call("Emulation.setDeviceMetricsOverride", &size);
            for scheme in ["light", "dark"] {
                let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
                self.chromium.call("Emulation.setEmulatedMedia", &media);
                let what = format!("{name}-{device}-{scheme}");
                let wide = self.ask("document.documentElement.scrollWidth");
                assert!(wide.as_f64().unwrap() <= f64::from(width), "{what} is {wide} wide");
                assert_eq!(self.faults(), Vec::<String>::new(), "{what}");
                self.picture(&what);
            }
        }
        self.scripts(false);
    }

    /// Every fault that axe-core finds: the rule, and the elements.
    fn faults(&mut self) -> Vec<String> {
        self.looks += 1;
        let found = self.chromium.evaluate(
            // What it could not measure counts as well, but for signs of one letter, which nobody is read out.
            "axe.run(document, {resultTypes: ['violations', 'incomplete']}).then(r => {
               const read = i => ({id: i.id, nodes: i.nodes.filter(n => !n.html.includes('aria-hidden=\"true\"'))});
               const unsure = r.incomplete.filter(i => i.id === 'color-contrast').map(read).filter(i => i.nodes.length);
               return [...r.violations, ...unsure].map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' '));
             })",
        );
        let found = found.as_array().unwrap().iter();
        found.map(|fault| fault.as_str().unwrap().to_owned()).collect()
    }

    fn picture(&mut self, name: &str) {
        let Some(folder) = self.pictures.clone() else { return };
        use base64::Engine as _;
        let taken = self.chromium.call("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        let bytes = base64::prelude::BASE64_STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// What the page complained of, but for answers that are no 200, which are what is looked at.
    #[must_use]
    pub fn complaints(&self) -> Vec<&str> {
        let all = self.chromium.complaints.iter().map(String::as_str);
        all.filter(|text| !text.contains("Failed to load resource")).collect()
    }

    /// Addresses that were asked for and do not begin with one of these.
    #[must_use]
    pub fn outside(&self, known: &[&str]) -> Vec<&str> {
        let all = self.chromium.requests.iter().map(String::as_str);
        all.filter(|url| !known.iter().any(|start| url.starts_with(start))).collect()
    }

    /// Plants faults on the page that is open, and sees that they are noticed: a watch that sleeps finds nothing wrong.
    ///
    /// # Panics
    /// When one is not.
    pub fn would_notice(&mut self) {
        self.scripts(true);
        let source = self.axe.clone();
        self.chromium.evaluate(&format!("{source}; typeof axe.run"));
        let before = self.complaints().len();
        self.chromium.evaluate(
            "document.querySelector('main').insertAdjacentHTML('beforeend',
               '<input name=\"nameless\"><p style=\"color: red\">x</p><img src=\"https://elsewhere.test/x.png\">'); true",
        );
        let faults = self.faults();
        assert!(faults.iter().any(|fault| fault.starts_with("label:")), "{faults:?}");
        self.chromium.hear_until("complaints", |chromium| {
            let of = |directive: &str| chromium.complaints.iter().any(|text| text.contains(directive));
            of("style-src") && of("img-src")
        });
        assert!(self.complaints().len() > before);
        self.chromium.complaints.clear();
        self.scripts(false);
    }
}
