// SPDX-License-Identifier: Apache-2.0
// Shows /openapi.json. Text goes in as text only, never as markup.
"use strict";

function element(name, parent, text, className) {
	const e = document.createElement(name);
	if (text !== undefined)
		e.textContent = text;
	if (className)
		e.className = className;
	parent.append(e);
	return e;
}

function follow(doc, value) {
	while (value && value.$ref)
		value = value.$ref.slice(2).split("/").reduce((at, key) => at[key], doc);
	return value;
}

// A schema as lines: name, type, what else is known.
function schemaText(doc, schema, indent) {
	const s = follow(doc, schema) || {};
	if (s.enum)
		return s.enum.map((v) => JSON.stringify(v)).join(" | ");
	if ("const" in s)
		return JSON.stringify(s.const);
	if (s.type === "array")
		return "[ " + schemaText(doc, s.items, indent) + " ]";
	if (s.type !== "object" || (!s.properties && !s.additionalProperties)) {
		const bounds = ["minimum", "maximum", "default", "format"].filter((k) => k in s)
			.map((k) => k + " " + s[k]).join(", ");
		return [].concat(s.type || "anything").join(" | ") + (bounds ? " (" + bounds + ")" : "");
	}
	const pad = indent + "  ", required = s.required || [];
	const lines = Object.entries(s.properties || {}).map(([name, value]) => {
		const about = follow(doc, value).description;
		return pad + name + (required.includes(name) ? "" : "?") + ": " + schemaText(doc, value, pad) +
			(about ? "   // " + about : "");
	});
	if (s.additionalProperties)
		lines.push(pad + "...: " + schemaText(doc, s.additionalProperties, pad));
	return "{\n" + lines.join("\n") + "\n" + indent + "}";
}

function content(doc, parent, body) {
	for (const [type, media] of Object.entries((body && body.content) || {})) {
		element("p", parent, type);
		if (media.schema)
			element("pre", parent, schemaText(doc, media.schema, ""));
	}
}

function operation(doc, parent, path, method, op) {
	const box = element("details", parent), head = element("summary", box);
	element("span", head, method, "method");
	element("code", head, path);
	element("span", head, "  " + op.summary);
	box.dataset.words = (method + " " + path + " " + op.summary + " " + op.operationId).toLowerCase();
	if (op.parameters) {
		const table = element("table", box);
		for (const one of op.parameters) {
			const p = follow(doc, one), row = element("tr", table);
			element("td", row).append(element("code", row, p.name));
			element("td", row, p.in + (p.required ? ", required" : ""));
			element("td", row, schemaText(doc, p.schema, ""));
			element("td", row, p.description);
		}
	}
	if (op.requestBody) {
		element("h4", box, "Request");
		content(doc, box, follow(doc, op.requestBody));
	}
	for (const [status, one] of Object.entries(op.responses)) {
		const answer = follow(doc, one);
		element("h4", box, status + " " + answer.description);
		if (status < "400")
			content(doc, box, answer);
	}
}

function show(doc) {
	const list = document.getElementById("list"), sections = {};
	document.getElementById("about").textContent = doc.info.description;
	for (const tag of doc.tags) {
		sections[tag.name] = element("section", list);
		element("h2", sections[tag.name], tag.name);
		if (tag.description)
			element("p", sections[tag.name], tag.description);
	}
	for (const [path, operations] of Object.entries(doc.paths))
		for (const [method, op] of Object.entries(operations))
			operation(doc, sections[op.tags[0]], path, method, op);
	document.getElementById("filter").addEventListener("input", (event) => {
		const words = event.target.value.toLowerCase().split(/\s+/);
		for (const box of list.querySelectorAll("details"))
			box.hidden = !words.every((w) => box.dataset.words.includes(w));
	});
}

fetch("/openapi.json").then((answer) => answer.json()).then(show).catch((error) => {
	document.getElementById("about").textContent = "The document cannot be read: " + error;
});
