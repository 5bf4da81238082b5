// What the widgets say, in the page's language: locales/LANGUAGE/main.json, which ComfyUI gives with the texts of all packs.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const languages = await api.getCustomNodesI18n().catch(() => ({})); // another pack's file may be broken: then all is English
const language = () => app.extensionManager.setting.get("Comfy.Locale");

const CATEGORIES = ["zero", "one", "two", "few", "many", "other"]; // those that a language has are the order of its forms

/** An English text in the page's language, or as it is where that has none. `values` replace {their names}. A text in several
 * forms, "{n} pair | {n} pairs", has one for each plural category of its language and is chosen by `values.n`. ComfyUI makes
 * the nodes anew after another language is chosen, so it is enough to ask while a widget is made or drawn.
 * tests/server/test_locales.py finds the texts, so they are written out where this is called. */
export function t(text, values = {}) {
  const translated = languages[language()]?.pairlora?.[text];
  const forms = (translated ?? text).split(" | "), rules = new Intl.PluralRules(translated ? language() : "en");
  const { pluralCategories } = rules.resolvedOptions();
  const at = CATEGORIES.filter((name) => pluralCategories.includes(name)).indexOf(rules.select(values.n));
  return (forms[at] ?? forms.at(-1)).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Frontends from 1.31 to 1.34 load a language when it is first wanted, and then forget what packs have brought for it
// (ComfyUI_frontend#7214). They load after this when the language is changed, and may have done so before.
const vue = document.getElementById("vue-app")?.__vue_app__;
const messages = vue?._context.provides[vue.__VUE_I18N_SYMBOL__]?.global;
if (messages) {
  const { setLocaleMessage } = messages;
  messages.setLocaleMessage = (name, own) => {
    setLocaleMessage(name, own);
    messages.mergeLocaleMessage(name, languages[name] ?? {});
  };
  for (const [name, texts] of Object.entries(languages)) messages.mergeLocaleMessage(name, texts);
}
