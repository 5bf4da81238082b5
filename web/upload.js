// Sending a folder or a zip to the server in one request; fetch cannot tell how far it has come, so XMLHttpRequest.
import { api } from "../../scripts/api.js";
import { t } from "./texts.js";

/**
 * @param {File[]} files those of one folder, or one zip
 * @param {(part: number) => void} onProgress gets 0..1
 * @returns {{done: Promise<{folder: string, skipped: {file: string, reason: string}[]}>, cancel: () => void}}
 */
export function upload(files, onProgress) {
  const paths = files.map((file) => file.webkitRelativePath || file.name);
  const form = new FormData();
  form.append("manifest", JSON.stringify({ name: paths[0].split("/")[0].replace(/\.zip$/i, ""), files: paths }));
  for (const file of files) form.append("file", file);

  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    request.onerror = () => reject(new Error(t("The upload broke off; nothing of it was kept. Try again.")));
    request.onabort = () => reject(new Error(t("The upload was cancelled; nothing of it was kept.")));
    request.onload = () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        answer = { error: t("The server answered {status}.", { status: `${request.status} ${request.statusText}` }) };
      }
      answer.error ? reject(new Error(answer.error)) : resolve(answer);
    };
    request.open("POST", api.apiURL("/pairlora/upload"));
    request.send(form);
  });
  return { done, cancel: () => request.abort() };
}
