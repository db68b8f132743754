// Runs the tests of browser.test.js in Firefox.

process.env.BROWSER = "firefox"
require("./browser.test")
