// The row of examples: a click opens the picture with its mask, and the object.

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-example]");
  if (!button) return;
  const { editors, key } = window.pbe;
  editors.source.busy(async () => {
    const opened = await server.open_example({ page: key, name: button.dataset.example });
    if (opened.error) throw new Error(opened.error);
    await Promise.all([editors.source.show(opened.source, opened.mask.url), editors.exemplar.show(opened.exemplar)]);
  });
});
