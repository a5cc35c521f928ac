// Starts `bilevelpy lsp` and lends its answers to the editor.
"use strict";

const vscode = require("vscode");
const { Connection } = require("./protocol");

const LANGUAGE = "blv";
let connection;

// --- positions and ranges, from the protocol to the editor and back

const place = (p) => new vscode.Position(p.line, p.character);
const range = (r) => new vscode.Range(place(r.start), place(r.end));
const location = (l) => new vscode.Location(vscode.Uri.parse(l.uri), range(l.range));
const plain = (p) => ({ line: p.line, character: p.character });
const at = (document, position) => ({
  textDocument: { uri: document.uri.toString() },
  position: plain(position),
});
const edit = (e) => new vscode.TextEdit(range(e.range), e.newText);

function workspaceEdit(found) {
  const edits = new vscode.WorkspaceEdit();
  for (const [uri, changes] of Object.entries((found && found.changes) || {})) {
    edits.set(vscode.Uri.parse(uri), changes.map(edit));
  }
  return edits;
}

function diagnostic(d) {
  const severity = Math.max((d.severity || 1) - 1, 0);
  const made = new vscode.Diagnostic(range(d.range), d.message, severity);
  made.code = d.code;
  made.source = d.source;
  made.relatedInformation = (d.relatedInformation || []).map(
    (r) => new vscode.DiagnosticRelatedInformation(location(r.location), r.message));
  return made;
}

function completion(item) {
  const made = new vscode.CompletionItem(item.label, (item.kind || 1) - 1);
  made.detail = item.detail;
  made.documentation = item.documentation;
  made.sortText = item.sortText;
  if (item.insertText) {
    made.insertText = item.insertTextFormat === 2
      ? new vscode.SnippetString(item.insertText) : item.insertText;
  }
  return made;
}

function symbol(s) {
  const made = new vscode.DocumentSymbol(
    s.name, s.detail || "", s.kind - 1, range(s.range), range(s.selectionRange));
  made.children = (s.children || []).map(symbol);
  return made;
}

// --- what the editor may ask

const ask = (method, params) => connection.request(`textDocument/${method}`, params);

function providers(legend) {
  const on = vscode.languages;
  return [
    on.registerHoverProvider(LANGUAGE, {
      provideHover: async (document, position) => {
        const found = await ask("hover", at(document, position));
        return found ? new vscode.Hover(new vscode.MarkdownString(found.contents.value)) : null;
      },
    }),
    on.registerCompletionItemProvider(LANGUAGE, {
      provideCompletionItems: async (document, position) => {
        const found = await ask("completion", at(document, position));
        return found ? found.items.map(completion) : [];
      },
    }, ".", '"', "("),
    on.registerDefinitionProvider(LANGUAGE, {
      provideDefinition: async (document, position) => {
        const found = await ask("definition", at(document, position));
        return found ? location(found) : null;
      },
    }),
    on.registerReferenceProvider(LANGUAGE, {
      provideReferences: async (document, position, context) => {
        const declared = { includeDeclaration: context.includeDeclaration };
        const found = await ask("references", { ...at(document, position), context: declared });
        return (found || []).map(location);
      },
    }),
    on.registerRenameProvider(LANGUAGE, {
      prepareRename: async (document, position) => {
        const found = await ask("prepareRename", at(document, position));
        return found ? range(found) : null;
      },
      provideRenameEdits: async (document, position, newName) =>
        workspaceEdit(await ask("rename", { ...at(document, position), newName })),
    }),
    on.registerDocumentSymbolProvider(LANGUAGE, {
      provideDocumentSymbols: async (document) => {
        const textDocument = { uri: document.uri.toString() };
        return ((await ask("documentSymbol", { textDocument })) || []).map(symbol);
      },
    }),
    on.registerDocumentFormattingEditProvider(LANGUAGE, {
      provideDocumentFormattingEdits: async (document, options) => {
        const textDocument = { uri: document.uri.toString() };
        return ((await ask("formatting", { textDocument, options })) || []).map(edit);
      },
    }),
    on.registerCodeActionsProvider(LANGUAGE, {
      provideCodeActions: async (document, wanted) => {
        const asked = {
          textDocument: { uri: document.uri.toString() },
          range: { start: plain(wanted.start), end: plain(wanted.end) },
          context: { diagnostics: [] },
        };
        return ((await ask("codeAction", asked)) || []).map((a) => {
          const made = new vscode.CodeAction(a.title, vscode.CodeActionKind.QuickFix);
          made.edit = workspaceEdit(a.edit);
          made.diagnostics = (a.diagnostics || []).map(diagnostic);
          made.isPreferred = a.isPreferred;
          return made;
        });
      },
    }),
    on.registerDocumentSemanticTokensProvider(LANGUAGE, {
      provideDocumentSemanticTokens: async (document) => {
        const textDocument = { uri: document.uri.toString() };
        const found = await ask("semanticTokens/full", { textDocument });
        return found ? new vscode.SemanticTokens(new Uint32Array(found.data)) : null;
      },
    }, new vscode.SemanticTokensLegend(legend.tokenTypes, legend.tokenModifiers)),
  ];
}

// --- documents

function watch(collection) {
  const here = (document) => document.languageId === LANGUAGE;
  const open = (document) => {
    if (!here(document)) return;
    connection.notify("textDocument/didOpen", {
      textDocument: {
        uri: document.uri.toString(),
        languageId: LANGUAGE,
        version: document.version,
        text: document.getText(),
      },
    });
  };
  vscode.workspace.textDocuments.forEach(open);
  return [
    vscode.workspace.onDidOpenTextDocument(open),
    vscode.workspace.onDidChangeTextDocument(({ document }) => {
      if (!here(document)) return;
      connection.notify("textDocument/didChange", {
        textDocument: { uri: document.uri.toString(), version: document.version },
        contentChanges: [{ text: document.getText() }],
      });
    }),
    vscode.workspace.onDidSaveTextDocument((document) => {
      if (!here(document)) return;
      connection.notify("textDocument/didSave", { textDocument: { uri: document.uri.toString() } });
    }),
    vscode.workspace.onDidCloseTextDocument((document) => {
      if (!here(document)) return;
      connection.notify("textDocument/didClose", { textDocument: { uri: document.uri.toString() } });
      collection.delete(document.uri);
    }),
  ];
}

async function activate(context) {
  const settings = vscode.workspace.getConfiguration("bilevelpy");
  const collection = vscode.languages.createDiagnosticCollection(LANGUAGE);
  context.subscriptions.push(collection);
  const notice = (method, params) => {
    if (method === "textDocument/publishDiagnostics") {
      collection.set(vscode.Uri.parse(params.uri), params.diagnostics.map(diagnostic));
    }
  };
  const end = (error) => {
    collection.clear();
    if (error) {
      vscode.window.showWarningMessage(
        `BLV: cannot start "${settings.get("command")} lsp" (${error.message}). Install bilevelpy ` +
        "with the extra lsp, or set bilevelpy.command.");
    }
  };
  connection = new Connection(settings.get("command"), ["lsp"], notice, end);
  let answer;
  try {
    answer = await connection.request("initialize", {
      processId: process.pid,
      rootUri: null,
      capabilities: { general: { positionEncodings: ["utf-16"] } },
      initializationOptions: { data: settings.get("data") || [] },
    });
  } catch (error) {
    return; // said by `end`
  }
  connection.notify("initialized", {});
  const legend = answer.capabilities.semanticTokensProvider.legend;
  context.subscriptions.push(...providers(legend), ...watch(collection));
}

function deactivate() {
  return connection ? connection.stop() : undefined;
}

module.exports = { activate, deactivate };
