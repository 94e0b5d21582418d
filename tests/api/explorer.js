// What a person does in the explorer, by the elements that a person sees.
(() => {
  const until = async (what, look) => {
    for (let n = 0; n < 400; n++) {
      const found = look();
      if (found) return found;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`not there after 20 s: ${what}; the page: ${document.body.innerText.slice(0, 2000)}`);
  };
  // The page keeps what was typed in its own state, and hears of it by the event.
  const type = (field, text) => {
    const kind = field instanceof HTMLTextAreaElement ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, text);
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.dispatchEvent(new Event("change", { bubbles: true }));
  };
  window.explorer = {
    ready: () => until("the list of operations", () => document.querySelector(".opblock")),
    authorize: async (token) => {
      (await until("the button Authorize", () => document.querySelector(".auth-wrapper .authorize"))).click();
      type(await until("the field for the token", () => document.querySelector(".auth-container input")), token);
      (await until("Authorize", () => document.querySelector(".auth-btn-wrapper .authorize"))).click();
      (await until("Close", () => document.querySelector(".auth-btn-wrapper .btn-done"))).click();
    },
    tryOut: async (operation, parameters, body) => {
      const block = () => document.getElementById(`operations-${operation}`);
      await until(operation, block);
      const find = (selector) => () => block().querySelector(selector);
      if (!block().classList.contains("is-open")) {
        (await until("the summary", find("button.opblock-summary-control"))).click();
      }
      (await until("Try it out", find(".try-out__btn"))).click();
      for (const [name, value] of Object.entries(parameters)) {
        type(await until(`the field ${name}`, find(`tr[data-param-name="${name}"] input`)), value);
      }
      if (body) {
        type(await until("the body", find("textarea.body-param__text")), JSON.stringify(body));
      }
      // Typing is taken over with a little delay.
      await new Promise((done) => setTimeout(done, 700));
      (await until("Execute", find(".btn.execute"))).click();
      const status = await until("the answer", find(".live-responses-table tbody .response-col_status"));
      const text = block().querySelector(".live-responses-table .response-col_description .microlight, .live-responses-table .response-col_description pre");
      return { status: parseInt(status.innerText, 10), body: text ? text.innerText : "" };
    },
  };
})();
