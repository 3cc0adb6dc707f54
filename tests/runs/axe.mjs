// Run axe-core on pages: node axe.mjs NODE_MODULES CHROMIUM URL... Prints a list as JSON.
import fs from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, chromium, ...urls] = process.argv.slice(2);
const entry = `${folder}/puppeteer-core/lib/esm/puppeteer/puppeteer-core.js`;
const puppeteer = (await import(pathToFileURL(entry))).default;
const axe = fs.readFileSync(`${folder}/axe-core/axe.min.js`, "utf8");
const flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
const browser = await puppeteer.launch({ executablePath: chromium, headless: true, args: flags });
const found = [];
for (const url of urls) { // in order: cookies of one stay for the next
  for (const width of [400, 1400]) {
    for (const scheme of ["light", "dark"]) {
      const page = await browser.newPage();
      const errors = [];
      page.on("pageerror", (error) => errors.push(error.message));
      page.on("console", (message) => errors.push(message.text()));
      await page.setBypassCSP(true); // for axe alone
      await page.setViewport({ width, height: 900 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.goto(url);
      await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
      await page.evaluate(axe);
      const violations = await page.evaluate(async () => (await window.axe.run()).violations.map(
        (one) => `${one.id}: ${one.nodes.map((node) => node.target).join(", ").slice(0, 200)}`));
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      found.push({ url, width, scheme, violations, errors, overflow });
      await page.close();
    }
  }
}
await browser.close();
console.log(JSON.stringify(found));
