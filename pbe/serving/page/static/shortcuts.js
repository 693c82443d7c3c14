// Shortcuts of the whole page, and pictures that are pasted.

const button = (id) => document.querySelector(`#${id}`);
const isShown = (control) => control?.offsetParent && !control.disabled;

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && isShown(button("pbe-paint"))) {
    event.preventDefault();
    button("pbe-paint").click();
  } else if (event.key === "Escape" && isShown(button("pbe-cancel"))) {
    button("pbe-cancel").click();
  }
});

// A picture is pasted into the editor with the focus, else into the first that is empty.
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  const { editors } = window.pbe;
  const focused = document.activeElement?.closest(".pbe-editor")?.dataset.role;
  const empty = Object.keys(editors).find((role) => editors[role].isEmpty());
  editors[focused ?? empty ?? "source"].openFile(file);
});

// A file that is dropped beside the editors must not replace the page.
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });
}
