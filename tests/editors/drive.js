// Runs the extension's client with a stand-in for the editor, against the real server.
"use strict";

const Module = require("module");
const [extension, command, folder] = process.argv.slice(2);
const fs = require("fs");
const path = require("path");

class Position { constructor(line, character) { Object.assign(this, { line, character }); } }
class Range { constructor(start, end) { Object.assign(this, { start, end }); } }
class Bag { constructor(...values) { this.values = values; } }
class WorkspaceEdit { constructor() { this.edits = []; } set(uri, edits) { this.edits.push(...edits); } }
const registered = {};
const published = new Map();
const handlers = {};
const on = (name) => (handler) => { handlers[name] = handler; return {}; };
const register = (name) => (language, provider) => { registered[name] = provider; return {}; };
const uri = (text) => ({ toString: () => text });

const text = fs.readFileSync(path.join(folder, "model.blv"), "utf8");
const document = {
  uri: uri("file://" + path.join(folder, "model.blv")),
  languageId: "blv",
  version: 1,
  getText: () => text,
};
const vscode = {
  Position, Range, WorkspaceEdit,
  Location: Bag, TextEdit: class { constructor(r, t) { this.range = r; this.newText = t; } },
  Diagnostic: class { constructor(r, message, severity) { Object.assign(this, { range: r, message, severity }); } },
  DiagnosticRelatedInformation: Bag, Hover: Bag, MarkdownString: Bag, SnippetString: Bag,
  CompletionItem: class { constructor(label, kind) { Object.assign(this, { label, kind }); } },
  DocumentSymbol: class { constructor(name) { this.name = name; } },
  CodeAction: class { constructor(title) { this.title = title; } },
  CodeActionKind: { QuickFix: "quickfix" },
  SemanticTokens: class { constructor(data) { this.data = data; } },
  SemanticTokensLegend: Bag,
  Uri: { parse: uri },
  window: { showWarningMessage: (m) => { console.error(m); process.exit(3); } },
  workspace: {
    getConfiguration: () => ({ get: (name) => (name === "command" ? command : []) }),
    textDocuments: [document],
    onDidOpenTextDocument: on("open"), onDidChangeTextDocument: on("change"),
    onDidSaveTextDocument: on("save"), onDidCloseTextDocument: on("close"),
  },
  languages: {
    createDiagnosticCollection: () => ({
      set: (u, found) => published.set(u.toString(), found), delete() {}, clear() {},
    }),
    registerHoverProvider: register("hover"),
    registerCompletionItemProvider: register("completion"),
    registerDefinitionProvider: register("definition"),
    registerReferenceProvider: register("references"),
    registerRenameProvider: register("rename"),
    registerDocumentSymbolProvider: register("symbols"),
    registerDocumentFormattingEditProvider: register("formatting"),
    registerCodeActionsProvider: register("actions"),
    registerDocumentSemanticTokensProvider: register("tokens"),
  },
};
const load = Module._load;
Module._load = (name, ...rest) => (name === "vscode" ? vscode : load(name, ...rest));

(async () => {
  const client = require(path.join(extension, "client.js"));
  await client.activate({ subscriptions: [] });
  while (!published.has(document.uri.toString())) await new Promise((r) => setTimeout(r, 20));
  const found = published.get(document.uri.toString());
  const where = found[0].range;
  const actions = await registered.actions.provideCodeActions(document, where);
  const line = text.split("\n").findIndex((l) => l.includes("var x"));
  const x = new Position(line, text.split("\n")[line].indexOf("x"));
  const result = {
    diagnostics: found.map((d) => [d.code, d.severity, d.range.start.line]),
    fixes: actions.map((a) => [a.title, a.edit.edits[0].newText]),
    hover: (await registered.hover.provideHover(document, x)).values[0].values[0],
    completion: (await registered.completion.provideCompletionItems(document, x)).length,
    definition: (await registered.definition.provideDefinition(document, x)).values[1].start.line,
    references: (await registered.references.provideReferences(document, x, { includeDeclaration: true })).length,
    rename: (await registered.rename.provideRenameEdits(document, x, "z")).edits.length,
    symbols: (await registered.symbols.provideDocumentSymbols(document)).map((s) => s.name),
    tokens: (await registered.tokens.provideDocumentSemanticTokens(document)).data.length % 5,
  };
  console.log(JSON.stringify(result));
  await client.deactivate();
})().catch((error) => { console.error(error); process.exit(1); });
