// The tests of the pages once more, in Firefox.

process.env.BROWSER = "firefox"
require("./browser.test")
