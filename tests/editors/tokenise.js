// Tokenises files by a TextMate grammar as VS Code does: node tokenise.js MODULES GRAMMAR FILE...
// Prints, for every file, [offset, text, scope] of each token.
"use strict";

const fs = require("fs");
const path = require("path");

const [modules, grammarPath, ...files] = process.argv.slice(2);
const load = (name) => require(path.join(modules, name));
const textmate = load("vscode-textmate");
const oniguruma = load("vscode-oniguruma");

async function main() {
  const wasm = path.join(modules, "vscode-oniguruma", "release", "onig.wasm");
  await oniguruma.loadWASM(fs.readFileSync(wasm).buffer);
  const registry = new textmate.Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
      createOnigString: (text) => new oniguruma.OnigString(text),
    }),
    loadGrammar: async () =>
      textmate.parseRawGrammar(fs.readFileSync(grammarPath, "utf8"), grammarPath),
  });
  const grammar = await registry.loadGrammar("source.blv");
  const found = {};
  for (const file of files) {
    found[file] = [];
    let state = textmate.INITIAL;
    let offset = 0;
    for (const line of fs.readFileSync(file, "utf8").split("\n")) {
      const answer = grammar.tokenizeLine(line, state);
      state = answer.ruleStack;
      for (const { startIndex, endIndex, scopes } of answer.tokens) {
        const text = line.slice(startIndex, endIndex);
        found[file].push([offset + startIndex, text, scopes[scopes.length - 1]]);
      }
      offset += line.length + 1;
    }
  }
  process.stdout.write(JSON.stringify(found));
}

main();
